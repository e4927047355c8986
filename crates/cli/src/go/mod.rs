//! What Docker's command line inherits from Go's libraries and scripts therefore rely on, to the character.

pub(crate) mod csv;
pub(crate) mod duration;
pub(crate) mod quote;
pub(crate) mod tabwriter;
pub(crate) mod template;
pub(crate) mod time;
pub(crate) mod units;
