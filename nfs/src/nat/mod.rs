//! NAPT44.

mod config;
