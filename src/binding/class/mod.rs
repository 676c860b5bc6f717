//! What the addon exports: the classes that `lib/` makes the package's of.

mod binding;
mod calls;
mod driver;
mod traced_call;
