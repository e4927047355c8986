//! The values of flags: from the user's short forms to wire types.
//!
//! Every function reads text and decides nothing else; the errors are what a person who typed the text needs.

pub(crate) mod address;
pub(crate) mod check;
pub(crate) mod device;
pub(crate) mod keyvalue;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod platform;
pub(crate) mod ports;
pub(crate) mod reference;
pub(crate) mod secret;
pub(crate) mod security;
pub(crate) mod volume;
