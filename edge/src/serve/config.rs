//! `[serve]` of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[serve]`: the live page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Whether there is a page.
    pub enabled: bool,
    /// Address and port; anything but loopback needs `token_file`. Port 0 takes any free one.
    pub listen: String,
    /// File with the secret a visitor must show, relative to the configuration's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Whether those who may see the page may also add, change and remove cameras through its address.
    pub control: bool,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            enabled: true,
            listen: "127.0.0.1:8080".to_owned(),
            token_file: None,
            control: true,
        }
    }
}
