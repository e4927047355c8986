//! HTTP over a unix socket or TCP to an engine: requests, hijacked streams, progress.
