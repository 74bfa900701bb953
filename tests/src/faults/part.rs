//! The parts of the pipeline in a fault case, and how they are killed, stopped and started again.

use std::time::Duration;

use tokio::time::sleep_until;

use super::FaultWorld;
use crate::processes::Process;

/// RabbitMQ writes half a second after a declaration which queues it has. Killed before, it finds a
/// queue without a leader afterwards, which takes no message ever again (rabbitmq-server#15725).
const QUEUES_ARE_KEPT_AFTER: Duration = Duration::from_millis(1500);

/// What can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The process that takes callbacks.
    Ingest,
    /// One of the two that look ids up.
    Fetcher,
    /// The other one.
    OtherFetcher,
    /// The process that deletes.
    Janitor,
    /// RabbitMQ.
    Broker,
    /// PostgreSQL.
    Database,
}

impl FaultWorld {
    /// One of the pipeline's processes.
    pub fn process(&mut self, part: Part) -> &mut Process {
        let process = self.processes.get_mut(&part);
        process.unwrap_or_else(|| panic!("{part:?} is no process"))
    }

    /// Kills a part with SIGKILL.
    pub async fn kill(&mut self, part: Part) {
        match part {
            Part::Broker => {
                sleep_until(self.declared + QUEUES_ARE_KEPT_AFTER).await;
                self.servers.broker.kill().await.unwrap();
            }
            Part::Database => self.servers.database.kill().await.unwrap(),
            process => self.process(process).kill().await,
        }
    }

    /// Stops a part in order. A process ends with exit code 0.
    pub async fn stop(&mut self, part: Part) {
        match part {
            Part::Broker => self.servers.broker.stop().await.unwrap(),
            Part::Database => self.servers.database.stop().await.unwrap(),
            process => self.process(process).stop().await,
        }
    }

    /// Starts a part again. A server lets clients in when this returns, a process may not be ready.
    pub async fn start(&mut self, part: Part) {
        let proxies = match part {
            Part::Broker => &self.network.broker,
            Part::Database => &self.network.database,
            process => {
                self.process(process).start();
                if process == Part::Ingest {
                    let address = self
                        .process(process)
                        .address_in_log("accepting callbacks")
                        .await;
                    self.network.ingest.lead_to(address);
                }
                return;
            }
        };
        let server = match part {
            Part::Broker => &self.servers.broker,
            _ => &self.servers.database,
        };
        server.start().await.unwrap();
        let address = server.address().await.unwrap();
        for proxy in proxies.values() {
            proxy.lead_to(address);
        }
    }
}
