//! The REST interface: router, handlers, version adapters.
