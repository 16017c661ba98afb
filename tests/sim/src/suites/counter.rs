//! Placeholder, replaced below.
use std::any::Any;

use base::KernelId;

use crate::service::{Body, Context, Parts, SimService, Suite};

#[derive(Default)]
pub struct Counters;
struct Part;
impl SimService for Part {
    fn message(&mut self, _: KernelId, _: &dyn Body, _: &mut Context<'_>) {}
    fn down(&mut self, _: KernelId, _: &mut Context<'_>) {}
    fn view(&mut self, _: &mut Context<'_>) {}
    fn operate(&mut self, _: &mut Context<'_>) {}
    fn timer(&mut self, _: &mut Context<'_>) {}
    fn as_any(&self) -> &dyn Any {
        self
    }
}
impl Suite for Counters {
    fn name(&self) -> &'static str {
        "counters"
    }
    fn start(&self, _: KernelId, _: u16) -> Box<dyn SimService> {
        Box::new(Part)
    }
    fn check(&mut self, _: KernelId, _: &Parts<'_>) -> Result<(), String> {
        Ok(())
    }
    fn finish(&mut self, _: &Parts<'_>) -> Result<(), String> {
        Ok(())
    }
}
