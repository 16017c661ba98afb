//! Pages between kernels that do not see each other's memory: many readers or one writer.
//!
//! * `lender.rs`: the home's side.
//! * `borrower.rs`: the holder's side, a page.
//! * `glue.rs`: both, with the service.

pub mod borrower;
pub(crate) mod glue;
pub mod lender;

pub use borrower::{Answer, Borrowed};
pub use lender::{Act, Copies, Place, Want, Wish};
