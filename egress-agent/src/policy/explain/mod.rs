//! What a policy says of one destination, told by the verdict that the kernel uses.

mod dest;
mod inbound;
mod near;
mod operation;
mod sni;
mod story;
mod text;

pub use dest::Dest;
pub use inbound::{Call, explain_call};
pub use operation::{Request, explain_request};
pub use story::{Answer, Explanation, RuleRef, Stage, explain};
