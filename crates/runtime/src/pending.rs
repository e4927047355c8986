
#![allow(missing_docs, unused, clippy::all)]
use crate::*; use rustix::process::Pid; use std::os::fd::*; 
#[derive(Debug)] pub struct Container { pid: Pid, pidfd: OwnedFd, cg: Cgroup, t: Option<OwnedFd> }
impl Container { pub fn pid(&self)->Pid{self.pid} pub fn pidfd(&self)->BorrowedFd<'_>{self.pidfd.as_fd()} pub fn take_terminal(&mut self)->Option<OwnedFd>{self.t.take()} pub fn cgroup(&self)->&Cgroup{&self.cg} pub fn start(&mut self)->Result<()>{todo!()} }
pub fn create(request: Create<'_>)->Result<Container>{todo!()}
#[derive(Debug)] pub struct Exec { pub pid: Pid, pub pidfd: OwnedFd, pub terminal: Option<OwnedFd> }
pub fn exec(target:&Target<'_>, request: ExecRequest<'_>)->Result<Exec>{todo!()}
