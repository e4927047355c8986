//! The supervisor of one container, its protocol and its log files.
