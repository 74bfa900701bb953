//! What an operator does with messages that were given up: look at them, replay them, purge them.
//!
//! All three read the queue from its head, as many messages as it held at the start, and return the
//! messages that they have not acked. A kill at any moment can duplicate a message and never lose one.

use broker::{Broker, BrokerSettings, Topology};

mod arguments;
mod letter;
mod list;
mod output;
mod purge;
mod queue_reader;
mod replay;

pub use arguments::Arguments;

use arguments::Action;

/// Name of the command, as its binary is called.
pub const NAME: &str = "dead-letters";

/// What the command does, in a sentence.
pub const ABOUT: &str =
    "Lists, replays or purges the messages that were given up, all or those chosen.";

/// Does what `arguments` ask for, and prints what came of it.
///
/// # Errors
/// The broker cannot be reached or lost the connection, the queue does not exist, or a message could
/// not be published. What is not settled by then is in the queue as before.
pub async fn run(settings: BrokerSettings, arguments: Arguments) -> anyhow::Result<()> {
    let topology = Topology::new(&settings.queue_prefix);
    let broker = Broker::new(NAME, &settings, topology);
    match arguments.action {
        Action::List => list::list(&broker, &arguments).await,
        Action::Replay => replay::replay(&broker, &arguments).await,
        Action::Purge => purge::purge(&broker, &arguments).await,
    }
}
