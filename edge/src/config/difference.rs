//! What a reload changes.

use super::EdgeConfig;

/// What differs between a configuration and a newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Names of cameras that only the newer one has, in its order.
    pub added: Vec<String>,
    /// Names of cameras that both have, not alike; a password that changed counts.
    pub changed: Vec<String>,
    /// Names of cameras that only the older one has.
    pub removed: Vec<String>,
    /// Other sections that differ and may change while the program runs.
    pub live: Vec<&'static str>,
    /// Other sections that differ and take a restart: they open models, files or ports.
    pub restart: Vec<&'static str>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Difference::default()
    }
}

impl EdgeConfig {
    /// What `new` changes. Only the order of cameras, the file's name and its folder do not count.
    pub fn difference(&self, new: &EdgeConfig) -> Difference {
        let mut difference = Difference::default();
        for camera in &new.cameras {
            match self.cameras.iter().find(|c| c.name == camera.name) {
                None => difference.added.push(camera.name.clone()),
                Some(old) if old != camera => difference.changed.push(camera.name.clone()),
                Some(_) => {}
            }
        }
        for camera in &self.cameras {
            if new.cameras.iter().all(|c| c.name != camera.name) {
                difference.removed.push(camera.name.clone());
            }
        }
        // The cache is named under [runtime].
        let (mut old_detector, mut old_embedder) = (self.detector.clone(), self.embedder.clone());
        old_detector.cache.clone_from(&new.detector.cache);
        old_embedder.cache.clone_from(&new.embedder.cache);
        difference.live = named([
            ("tracker", self.tracker != new.tracker),
            ("crops", self.crops != new.crops),
            ("health", self.health != new.health),
            ("log", self.log != new.log),
        ]);
        difference.restart = named([
            ("detector", old_detector != new.detector),
            ("embedder", old_embedder != new.embedder),
            ("runtime", self.runtime != new.runtime),
            ("associate", self.associate != new.associate),
            ("gallery", self.gallery != new.gallery),
            ("serve", self.serve != new.serve),
            ("events", self.events != new.events),
        ]);
        difference
    }
}

fn named<const N: usize>(sections: [(&'static str, bool); N]) -> Vec<&'static str> {
    sections
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| name)
        .collect()
}
