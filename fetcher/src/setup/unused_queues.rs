//! Removing the delay queues of former settings.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use broker::{Broker, BrokerSettings, Queue};
use reqwest::redirect::Policy;
use serde::Deserialize;
use settings::Value;
use tls::Client;
use tokio::time::sleep;
use url::Url;

/// The broker counts the messages of a queue every 5 s. After this time a count is newer than the unbinding, even if
/// one was left out.
const NEW_COUNT: Duration = Duration::from_secs(11);

/// How long the management API may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Address of RabbitMQ's management API; none if it is empty.
#[derive(Clone, Debug)]
pub struct ManagementUrl(pub(super) Option<Url>);

impl Value for ManagementUrl {
    fn parse(raw: &str) -> Result<Self, String> {
        if raw.is_empty() {
            return Ok(Self(None));
        }
        let url = <Url as Value>::parse(raw)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("user and password are those of AMQP_URL".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it can have no query and no fragment".to_owned());
        }
        Ok(Self(Some(url)))
    }

    fn show(&self) -> String {
        self.0.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// Deletes the delay queues that `broker`'s topology does not name, if they are empty. Returns their names.
///
/// A process with former settings may still publish to them. So each is unbound first: what is published from then on
/// goes to `objects.unroutable`. A queue that is not empty then is bound again.
///
/// # Errors
/// The management API or the broker does not answer, or does not let the user in.
pub(super) async fn remove(
    management: &Url,
    settings: &BrokerSettings,
    broker: &Broker,
) -> anyhow::Result<Vec<String>> {
    let empty = async || {
        let queues = list(management, settings).await;
        let queues = queues.with_context(|| format!("listing the queues at {management}"))?;
        anyhow::Ok(unused(broker, queues))
    };
    let found = empty().await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let connection = broker.connect("removal").await?;
    for queue in &found {
        broker.unbind(&connection, *queue).await?;
    }
    sleep(NEW_COUNT).await;
    let still = empty().await?;
    let mut removed = Vec::new();
    for queue in found {
        if still.contains(&queue) && broker.delete_empty(&connection, queue).await? {
            removed.push(broker.topology().name(queue));
        } else {
            broker.bind(&connection, queue).await?;
        }
    }
    broker.close(connection).await?;
    Ok(removed)
}

/// A queue as the management API lists it.
#[derive(Deserialize)]
struct ListedQueue {
    name: String,
    /// With those that are on their way to another queue; none if the broker has not counted them yet.
    messages: Option<u64>,
}

fn unused(broker: &Broker, listed: Vec<ListedQueue>) -> BTreeSet<Queue> {
    let topology = broker.topology();
    let named = topology.queue_names();
    let empty = listed.into_iter().filter(|queue| queue.messages == Some(0));
    let unnamed = empty.filter(|queue| !named.contains(&queue.name));
    unnamed
        .filter_map(|queue| topology.queue(&queue.name))
        .filter(|queue| !queue.delay().is_zero())
        .collect()
}

async fn list(management: &Url, settings: &BrokerSettings) -> anyhow::Result<Vec<ListedQueue>> {
    let login = settings.address()?;
    let uri = login.uri();
    let mut url = management.clone();
    url.path_segments_mut()
        .map_err(|()| anyhow::anyhow!("the address cannot have a path"))?
        .pop_if_empty()
        .extend(["api", "queues", &uri.vhost]);
    url.set_query(Some("columns=name,messages"));
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(Policy::none())
        .no_proxy();
    let client = match management.scheme() {
        "https" => client.tls_backend_preconfigured(Client::new(&settings.trust, None).config()?),
        _ => client,
    };
    let user = &uri.authority.userinfo;
    let request = client.build()?.get(url);
    let request = request.basic_auth(&user.username, Some(&user.password));
    let answer = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    anyhow::ensure!(
        status.is_success(),
        "HTTP {status}: the user {} needs the tag management",
        user.username
    );
    let body = answer.bytes().await?;
    serde_json::from_slice(&body).context("the answer is no list of queues")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_of_the_management_api_is_refused_and_no_password_shown() {
        for raw in [
            "localhost:15672",
            "amqp://localhost",
            "http://user:hidden-word@localhost:15672",
            "http://localhost:15672/?x=1",
        ] {
            let error = ManagementUrl::parse(raw).unwrap_err();
            assert!(!error.contains("hidden-word"), "{error}");
        }
        assert!(ManagementUrl::parse("").unwrap().0.is_none());
    }
}
