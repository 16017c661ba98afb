//! x86-64: entry, traps, APIC, paging format, contexts.
#![no_std]
