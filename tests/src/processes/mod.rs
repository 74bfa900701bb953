//! The processes of the pipeline: as binaries that an operator starts, or inside the test.

mod binary;
mod instance;
mod pipeline;
mod process;
mod usage;

pub use self::process::{Process, address_in};
pub use binary::{build, exit_code_with_full_log, exit_code_with_full_pipe, output};
pub use instance::{Instance, configure};
pub use pipeline::Pipeline;
