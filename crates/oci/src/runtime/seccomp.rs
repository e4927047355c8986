//! The `linux.seccomp` object: a system call filter.

use super::null_as_default;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A system call filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// For calls that no rule names.
    pub default_action: SeccompAction,
    /// Errno (or trace message) of the default action; unset is `EPERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`, beside the native one.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub flags: Vec<String>,
    /// Unix socket that receives the notify descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<PathBuf>,
    /// Passed to the listener as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// Rules; of several for one call with arguments, any may match.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub syscalls: Vec<SyscallRule>,
}

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeccompAction {
    /// The process is killed with SIGSYS.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The thread is killed with SIGSYS.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// The old name of [`Self::KillThread`].
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// SIGSYS is sent.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// The call returns an errno.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// A tracer decides.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// The call proceeds.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// The call proceeds and is logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// The holder of the notify descriptor decides.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyscallRule {
    /// System calls by name; those an architecture lacks are skipped there.
    pub names: Vec<String>,
    /// What happens.
    pub action: SeccompAction,
    /// Errno (or trace message) of the action; unset is `EPERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions that must all hold.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<SyscallArgument>,
}

/// A condition on one argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyscallArgument {
    /// 0 to 5.
    pub index: u32,
    /// Compared with; the mask of [`SeccompOperator::MaskedEqual`].
    pub value: u64,
    /// What the masked argument must equal.
    #[serde(default)]
    pub value_two: u64,
    /// How it is compared.
    pub op: SeccompOperator,
}

/// How an argument (64 bits, unsigned) is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the operators' own names")]
pub enum SeccompOperator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}
