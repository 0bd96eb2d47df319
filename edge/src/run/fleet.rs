//! The cameras of a run, which come, change and go while it goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{CameraConfig, EdgeConfig};
use crate::ingest::{IngestError, LiveCameras};
use crate::pipeline::{Pipeline, PipelineError};
use crate::serve::Hub;
use crate::types::{CameraIndex, TrackletId};

/// Cameras that are open, by index.
pub(super) struct Fleet {
    live: Arc<LiveCameras>,
    hub: Hub,
    cameras: BTreeMap<CameraIndex, CameraConfig>,
}

/// A camera and its tracklets that ended when it went.
pub(super) type Ended = (CameraIndex, Vec<TrackletId>);

impl Fleet {
    /// The cameras of a configuration, which pipeline and page know already.
    pub(super) fn open(
        config: &EdgeConfig,
        live: Arc<LiveCameras>,
        hub: Hub,
    ) -> Result<Self, IngestError> {
        let mut fleet = Fleet {
            live,
            hub,
            cameras: BTreeMap::new(),
        };
        for (index, camera) in config.cameras.iter().enumerate() {
            fleet.live.add(index, camera)?;
            fleet.cameras.insert(index, camera.clone());
        }
        Ok(fleet)
    }

    /// Cameras that are open.
    pub(super) fn cameras(&self) -> &BTreeMap<CameraIndex, CameraConfig> {
        &self.cameras
    }

    /// Adds a camera, or changes the one of its name.
    pub(super) fn put(
        &mut self,
        camera: &CameraConfig,
        pipeline: &mut Pipeline,
    ) -> Result<Ended, FleetError> {
        let index = pipeline.camera_index(&camera.name);
        let ended = match self.cameras.get(&index) {
            // Rules for people alone need no new connection.
            Some(old) if old.same_stream(camera) => Vec::new(),
            Some(_) => {
                let ended = pipeline.end_camera(index)?;
                self.live.add(index, camera)?;
                ended
            }
            None => {
                self.hub.add_camera(index, &camera.name);
                self.live.add(index, camera)?;
                Vec::new()
            }
        };
        pipeline.watch(index, camera);
        self.cameras.insert(index, camera.clone());
        Ok((index, ended))
    }

    /// Removes the camera of this name; `None` if there is none.
    pub(super) fn remove(
        &mut self,
        name: &str,
        pipeline: &mut Pipeline,
    ) -> Result<Option<Ended>, FleetError> {
        let Some((&index, _)) = self.cameras.iter().find(|(_, c)| c.name == name) else {
            return Ok(None);
        };
        self.live.remove(index);
        let ended = pipeline.unwatch(index)?;
        self.hub.remove_camera(index);
        self.cameras.remove(&index);
        Ok(Some((index, ended)))
    }

    /// The cameras and how they are, without credentials.
    pub(super) fn list(&self) -> Value {
        let statuses = self.live.statuses();
        self.cameras
            .iter()
            .map(|(index, camera)| {
                let status = statuses.get(index);
                json!({
                    "index": index,
                    "camera": camera,
                    "status": status,
                })
            })
            .collect()
    }
}

/// A change of cameras that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FleetError {
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}
