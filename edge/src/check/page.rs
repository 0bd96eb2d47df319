//! The page's port and token, tried by opening the page for a moment.

use super::Finding;
use crate::config::EdgeConfig;
use crate::serve::{self, Hub};

/// Nothing where no page is wanted.
pub(super) fn look(config: &EdgeConfig) -> Option<Finding> {
    if !config.serve.enabled {
        return None;
    }
    let outcome = match serve::spawn(&config.serve, &config.base, Hub::new(Vec::new()), None) {
        Err(e) => Err(e.to_string()),
        Ok(page) => {
            let address = page.addr();
            page.stop();
            Ok(match config.serve.token_file {
                Some(_) => format!("http://{address}, behind a token"),
                None => format!("http://{address}, for this machine only"),
            })
        }
    };
    Some(Finding::of("page", outcome))
}
