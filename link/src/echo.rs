//! The echo service: sends back what it gets. Measurements time the complete path with it.

use wire::test::{Echo, EchoReply};

use crate::{
    error::Result,
    links::Links,
    service::{Handler, Incoming},
};

/// Answers every [`Echo`] at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct EchoService;

impl Handler for EchoService {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> Result<()> {
        let (echo, payload) = message.read::<Echo>()?;
        links.answer(message.answer_to(), &EchoReply { value: echo.value }, payload)
    }
}
