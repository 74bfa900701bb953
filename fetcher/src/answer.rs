//! The answer to a look-up, or why there is none.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use metric_definitions::Label;

use crate::object::Object;

/// What a look-up ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Online(Object),
    Offline,
    /// The client service works and does not know it (404, 410).
    Gone,
    Failed(Failure),
}

/// A look-up that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// How long the client service asked for rest.
    pub(crate) retry_after: Option<Duration>,
}

/// What went wrong with a look-up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No connection was made: nothing was asked.
    Unreachable(String),
    /// The connection broke.
    Connection(String),
    /// No whole answer in time.
    Timeout,
    /// 429: the client service asks for fewer look-ups, of whatever object.
    Throttled,
    /// Another status that may pass: 408, 425, 5xx, and what is not understood.
    Status(u16),
    /// 404 or 410: the object is gone, or a gateway finds nothing at all.
    Gone(u16),
    /// Another 4xx status that will not change, if it is about the object.
    Refused(u16),
    /// Not the answer to what was asked.
    Malformed(String),
    /// A defect of this program.
    Panicked,
    /// Its message was unacked for too long.
    Unfinished,
}

impl Reason {
    /// Whether a client service that works may answer so about one object. A gateway in front of it may
    /// answer so about all.
    pub(crate) fn may_be_about_the_object(&self) -> bool {
        matches!(self, Self::Gone(_) | Self::Refused(_))
    }

    /// Whether it uses up one of the id's tries. A failure that has nothing to do with the id does not.
    pub(crate) fn costs_a_try(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable(_) | Self::Throttled | Self::Unfinished
        )
    }

    /// The kind of failure, as traces name it: the status where there is one.
    pub(crate) fn error_type(&self) -> Cow<'static, str> {
        match self {
            Self::Status(status) | Self::Gone(status) | Self::Refused(status) => {
                status.to_string().into()
            }
            Self::Throttled => "429".into(),
            _ => self.value().into(),
        }
    }
}

/// The kind of failure.
impl Label for Reason {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "connection",
        "timeout",
        "throttled",
        "status",
        "gone",
        "refused",
        "malformed",
        "panic",
        "unfinished",
    ];

    fn value(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Connection(_) => "connection",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Status(_) => "status",
            Self::Gone(_) => "gone",
            Self::Refused(_) => "refused",
            Self::Malformed(_) => "malformed",
            Self::Panicked => "panic",
            Self::Unfinished => "unfinished",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) | Self::Connection(error) => {
                write!(formatter, "connection: {error}")
            }
            Self::Timeout => formatter.write_str("no answer in time"),
            Self::Throttled => formatter.write_str("status 429"),
            Self::Status(status) | Self::Gone(status) | Self::Refused(status) => {
                write!(formatter, "status {status}")
            }
            Self::Malformed(error) => write!(formatter, "malformed answer: {error}"),
            Self::Panicked => formatter.write_str("a panic, which the log describes"),
            Self::Unfinished => formatter.write_str("not finished in time"),
        }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            retry_after: None,
        }
    }
}

impl Answer {
    /// The answer while other ids are answered: then 404 is about the object.
    pub(crate) fn believed(self) -> Self {
        match self {
            Self::Failed(failure) if matches!(failure.reason, Reason::Gone(_)) => Self::Gone,
            answer => answer,
        }
    }

    /// The answer while nothing shows that the client service works: another try may end otherwise.
    pub(crate) fn doubted(self) -> Self {
        match self {
            Self::Failed(Failure {
                reason: Reason::Refused(status),
                ..
            }) => Self::Failed(Reason::Status(status).into()),
            answer => answer,
        }
    }
}

/// What a look-up ended in. It does not end unfinished.
impl Label for Answer {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &[
        "online",
        "offline",
        "gone",
        "connection",
        "timeout",
        "throttled",
        "status",
        "refused",
        "malformed",
        "panic",
    ];

    fn value(&self) -> &'static str {
        match self {
            Self::Online(_) => "online",
            Self::Offline => "offline",
            Self::Gone => "gone",
            Self::Failed(failure) => failure.reason.value(),
        }
    }
}
