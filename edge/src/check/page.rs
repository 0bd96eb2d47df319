//! The page's port and token, tried by opening the page for a moment.

use std::io::ErrorKind;
use std::time::Duration;

use super::Finding;
use crate::config::EdgeConfig;
use crate::serve::{self, Hub, ServeError};

/// Nothing where no page is wanted.
pub(super) fn look(config: &EdgeConfig) -> Option<Finding> {
    if !config.serve.enabled {
        return None;
    }
    let open = || serve::spawn(&config.serve, &config.base, Hub::new(Vec::new()), None);
    let mut page = open();
    // What is just being stopped, such as another check, is waited for.
    for _ in 0..10 {
        match &page {
            Err(ServeError::Bind { source, .. }) if source.kind() == ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(200));
                page = open();
            }
            _ => break,
        }
    }
    let outcome = match page {
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
