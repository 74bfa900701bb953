//! The client service of the fault suite: its answer about an id follows from the id.

use tokio::sync::watch;

use super::ledger::AnswerRecord;
use crate::client::{ClientService, Reply};

/// What becomes of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is online.
    Online,
    /// It is online, but the first look-up fails.
    OnlineAtTheSecondTry,
    /// It is offline.
    Offline,
    /// The client service does not know it: 404.
    Gone,
    /// Every look-up fails.
    Failing,
}

impl Fate {
    /// The fate of an id. Negative ids are those of probes, all of them online.
    #[must_use]
    pub(crate) fn of(id: i64) -> Self {
        match id {
            ..0 => Self::Online,
            _ => match id % 50 {
                49 => Self::Failing,
                1..=3 => Self::Gone,
                4..=9 => Self::Offline,
                10..=12 => Self::OnlineAtTheSecondTry,
                _ => Self::Online,
            },
        }
    }

    /// Whether a row is to be stored.
    #[must_use]
    pub(crate) fn is_online(self) -> bool {
        matches!(self, Self::Online | Self::OnlineAtTheSecondTry)
    }

    /// The answer to the `n`th look-up (from 1).
    #[must_use]
    pub(crate) fn reply(self, n: usize) -> Reply {
        match self {
            Self::OnlineAtTheSecondTry if n == 1 => Reply::Status(500, None),
            Self::Online | Self::OnlineAtTheSecondTry => Reply::Online,
            Self::Offline => Reply::Offline,
            Self::Gone => Reply::Status(404, None),
            Self::Failing => Reply::Status(500, None),
        }
    }
}

/// How the client service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As the ids' fates say.
    Honest,
    /// Not at all.
    Slow,
    /// The first answer about an id is not to be believed, later ones are true.
    Lying,
    /// With this status, whatever is asked.
    Failing(u16),
}

/// Starts a client service in the mood of the moment, which records its true answers.
pub(crate) async fn start(mood: watch::Receiver<Mood>, answers: AnswerRecord) -> ClientService {
    ClientService::start(move |id, n| match *mood.borrow() {
        Mood::Slow => Reply::Silence,
        Mood::Failing(status) => Reply::Page(status),
        Mood::Lying if n == 1 => lie(id),
        Mood::Honest | Mood::Lying => {
            answers.note(id, Fate::of(id));
            Fate::of(id).reply(n)
        }
    })
    .await
}

/// A different lie about each id.
fn lie(id: i64) -> Reply {
    match id.rem_euclid(6) {
        0 => Reply::Body(format!(r#"{{"id":{},"online":true}}"#, id + 1)),
        1 => Reply::Body(format!(r#"{{"id":{id},"onl"#)),
        2 => Reply::Body("<html>all is well</html>".to_owned()),
        3 => Reply::Body(String::new()),
        4 => Reply::Body(format!(r#"{{"id":{id},"online":"true"}}"#)),
        _ => Reply::Body(format!(r#"{{"id":"{id}","online":true}}"#)),
    }
}
