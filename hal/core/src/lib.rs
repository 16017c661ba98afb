//! The safe hardware layer that the rest of Cob uses.
#![no_std]
