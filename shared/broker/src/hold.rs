//! Holding consumption back for a while.

use tokio::sync::watch;

/// While it is on, a consumer gives its messages back and takes no more. Clones share the state.
#[derive(Clone, Debug)]
pub struct Hold(watch::Receiver<bool>);

impl Hold {
    /// A hold that is never on.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::channel(false).1)
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is off. From then on [`Self::changed`] misses nothing.
    pub async fn off(&mut self) {
        if self.0.wait_for(|on| !on).await.is_err() {
            tracing::debug!("the owner of the hold is gone");
        }
    }

    /// Waits for the next change, even a brief one.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<watch::Receiver<bool>> for Hold {
    fn from(on: watch::Receiver<bool>) -> Self {
        Self(on)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_brief_hold_is_noticed_and_one_without_an_owner_is_never_on() {
        let on = watch::Sender::new(false);
        let mut hold = Hold::from(on.subscribe());
        hold.off().await;
        assert!(hold.changed().now_or_never().is_none());
        on.send_replace(true);
        assert!(hold.is_on() && hold.off().now_or_never().is_none());
        on.send_replace(false);
        assert!(hold.changed().now_or_never().is_some());
        let mut never = Hold::never();
        never.off().await;
        assert!(!never.is_on() && never.changed().now_or_never().is_none());
    }
}
