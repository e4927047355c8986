//! The services that a client calls, method by method: Control, the gateway (LLBBridge), the health of this side.

use crate::cache;
use crate::control::BuildKit;
use crate::grpc::{Answer, Call, Code, Service, Status, framed};
use crate::messages::{
    Capability, Empty, InfoResponse, ListWorkersResponse, Platform, PongResponse, SolveResponse,
    StatusRequest, Version, Worker,
};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// What the gateway can do, of what clients ask for.
const CAPABILITIES: [&str; 5] = [
    "solve.base",
    "return",
    "returnmap",
    "proto.refarray",
    "frontend.caps",
];

/// What builds can do, of what clients ask for.
const LLB_CAPABILITIES: [&str; 5] = [
    "frontend.dockerfile",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.multiple",
    // Of prune.
    "gc.freespacefilter",
];

impl Service for BuildKit {
    async fn call(&self, mut call: Call) -> Result<Answer, Status> {
        let state = self.state();
        match call.path.as_str() {
            "/moby.buildkit.v1.Control/Solve" => {
                let request = call.message().await?;
                let exporter = state.solve(request).await?;
                Ok(Answer::one(&SolveResponse { exporter }))
            }
            "/moby.buildkit.v1.Control/Status" => {
                let request: StatusRequest = call.message().await?;
                state.status(&request.build).await.map(Answer::Many)
            }
            "/moby.buildkit.v1.Control/ListWorkers" => Ok(Answer::one(&ListWorkersResponse {
                workers: vec![worker()],
            })),
            "/moby.buildkit.v1.Control/Info" => Ok(Answer::one(&InfoResponse {
                version: Some(version()),
            })),
            "/moby.buildkit.v1.Control/DiskUsage" => {
                let request = call.message().await?;
                let usage = block_in_place(|| cache::usage(&state.engine, &request));
                usage.map(|usage| Answer::one(&usage))
            }
            "/moby.buildkit.v1.Control/Prune" => {
                let request = call.message().await?;
                block_in_place(|| cache::prune(&state.engine, &request)).map(listed)
            }
            // No build is remembered when it is over.
            "/moby.buildkit.v1.Control/ListenBuildHistory" => Ok(Answer::Many(mpsc::channel(1).1)),
            "/moby.buildkit.v1.frontend.LLBBridge/Ping" => {
                state.steered(&call).await?;
                Ok(Answer::one(&PongResponse {
                    frontend: CAPABILITIES.map(capability).to_vec(),
                    llb: LLB_CAPABILITIES.map(capability).to_vec(),
                    workers: vec![worker()],
                }))
            }
            "/moby.buildkit.v1.frontend.LLBBridge/Solve" => {
                let build = state.steered(&call).await?;
                let request = call.message().await?;
                let answer = state.gateway_solve(&build, request).await?;
                Ok(Answer::one(&answer))
            }
            "/moby.buildkit.v1.frontend.LLBBridge/Return" => {
                let build = state.steered(&call).await?;
                build.take_returned(call.message().await?)?;
                Ok(Answer::one(&Empty {}))
            }
            "/grpc.health.v1.Health/Check" => Ok(Answer::one(&Health { status: SERVING })),
            other => Err(Status::new(
                Code::Unimplemented,
                format!("{other} of BuildKit's protocol is not supported yet"),
            )),
        }
    }
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Several messages that are all there.
fn listed(messages: Vec<impl prost::Message>) -> Answer {
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in &messages {
        sender
            .try_send(Ok(framed(message)))
            .expect("there is room for all");
    }
    Answer::Many(receiver)
}

fn capability(id: &str) -> Capability {
    Capability {
        id: id.to_owned(),
        enabled: true,
    }
}

fn version() -> Version {
    Version {
        package: "hull".to_owned(),
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: String::new(),
    }
}

/// This engine, as the one worker there is.
fn worker() -> Worker {
    let host: oci::image::Platform = "linux"
        .parse()
        .expect("a system alone means this machine's architecture");
    Worker {
        id: "hull".to_owned(),
        labels: BTreeMap::from([
            (
                "org.mobyproject.buildkit.worker.executor".to_owned(),
                "hull".to_owned(),
            ),
            // By this, clients know that all outputs and caches are understood here.
            (
                "org.mobyproject.buildkit.worker.snapshotter".to_owned(),
                "hull".to_owned(),
            ),
        ]),
        platforms: vec![Platform {
            architecture: host.architecture,
            os: host.os,
            variant: String::new(),
        }],
        version: Some(version()),
    }
}
