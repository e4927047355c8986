//! A shell in a step that has failed (`--debug-shell-on-failure`): the engine has made its container, this side runs and removes it.

use crate::container::follow::{Follow, start_request};
use crate::error::Result;
use crate::output;
use crate::stdio::{Attach, Signals};
use client::{Client, Request};

/// How failed steps are entered.
#[derive(Debug)]
pub(crate) struct Shell<'a> {
    pub(crate) client: &'a Client,
    pub(crate) detach_keys: String,
}

impl Shell<'_> {
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
