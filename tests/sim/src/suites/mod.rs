//! The services that are simulated. Adding one: implement [`crate::SimService`] and [`crate::Suite`] in a file here, and add it to [`all`].

mod counter;
mod files;
mod memory;
mod resources;

use crate::Suite;

/// Every service.
pub fn all() -> Vec<Box<dyn Suite>> {
    vec![
        Box::new(counter::Counters),
        Box::new(files::Files),
        Box::<memory::Memories>::default(),
        Box::<resources::Resources>::default(),
    ]
}
