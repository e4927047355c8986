//! The durable records.
