//! The docker-style command line.
