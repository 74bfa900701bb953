//! What the fault suite needs: a world whose parts can fail under load, and a ledger of every id.

mod case;
mod client_service;
mod ledger;
mod load;
mod network;
mod part;
mod world;

pub use case::{Allowed, Case, Table, duration};
pub use client_service::Mood;
pub use part::Part;
pub use world::{ACK_TICK, ACK_TIMEOUT, FaultWorld, MEMORY_WATERMARK, OBJECT_TTL};
