//! What a build asks of this side while it goes on: SSH agents; and a shell in a step that has failed
//! (`--debug-shell-on-failure`), whose container the engine has made, and this side runs and removes.

use super::ssh::Agents;
use crate::container::follow::{Follow, start_request};
use crate::error::Result;
use crate::output;
use crate::stdio::{Attach, Signals};
use api_types::BuildEvent;
use client::{Client, Request};

/// What a build can be given.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) client: &'a Client,
    pub(crate) agents: Agents,
    /// The keys that leave a shell.
    pub(crate) detach_keys: String,
}

impl Asked<'_> {
    /// Answers for an agent, if that is what an event asks for.
    pub(crate) async fn agent(&self, event: &BuildEvent) -> Result<()> {
        match event {
            BuildEvent::Agent { id, connection } => {
                self.agents.answer(self.client, id, connection).await
            }
            _ => Ok(()),
        }
    }

    /// Stays in the shell until it ends, and removes its container, for which the build waits.
    pub(crate) async fn enter(&self, container: &str, reason: &str) -> Result<()> {
        output::complain(&format!(
            "{reason}\nThis is what the step has left; the build goes on when the shell ends."
        ));
        if let Err(error) = self.stay(container).await {
            let why = crate::error::chain(&error);
            output::complain(&format!("the failed step cannot be entered: {why}"));
        }
        let removal = Request::delete(&["containers", container])
            .query_flag("force", true)
            .query_flag("v", true);
        match self.client.call(&removal).await {
            // Somebody else was faster.
            Err(error) if error.is_not_found() => Ok(()),
            removed => Ok(removed?),
        }
    }

    async fn stay(&self, container: &str) -> Result<()> {
        let follow = Follow {
            client: self.client,
            id: container,
            attach: Attach {
                tty: true,
                stdin: true,
                stdout: true,
                stderr: true,
                detach_keys: self.detach_keys.clone(),
            },
            auto_remove: false,
        };
        // What the shell ends with says nothing of the step.
        let signals = Signals::catch(false)?;
        follow.start(&start_request(container), signals).await?;
        Ok(())
    }
}
