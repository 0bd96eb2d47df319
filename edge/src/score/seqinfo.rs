//! `seqinfo.ini`, which lies beside the folder `gt` of a MOTChallenge sequence.

use std::path::Path;

use super::lines::{BoxFileError, for_each_line, number};

const WANTED: &str =
    "`key=value` under [Sequence], with frameRate, seqLength, imWidth and imHeight above 0";

/// What a sequence says of itself; each may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SequenceInfo {
    /// Frames per second.
    pub frame_rate: Option<f64>,
    /// Number of frames.
    pub frames: Option<u64>,
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
}

impl SequenceInfo {
    /// Reads the file; other keys are passed over.
    ///
    /// # Errors
    /// [`BoxFileError`] naming file and line.
    pub fn read(path: &Path) -> Result<Self, BoxFileError> {
        let mut info = SequenceInfo::default();
        for_each_line(path, WANTED, |line| {
            if line.starts_with(['[', ';', '#']) {
                return Ok(());
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| format!("`{line}` has no `=`"))?;
            let (key, value) = (key.trim(), value.trim());
            let positive = || match number(value)? {
                n if n > 0.0 => Ok(n),
                n => Err(format!("{key} is {n}")),
            };
            let count = |most: f64| match positive()? {
                n if n.fract() == 0.0 && n <= most => Ok(n),
                n => Err(format!("{key} {n} is no count")),
            };
            match key {
                "frameRate" => info.frame_rate = Some(positive()?),
                "seqLength" => info.frames = Some(count(1e15)? as u64),
                "imWidth" => info.width = Some(count(1e6)? as u32),
                "imHeight" => info.height = Some(count(1e6)? as u32),
                _ => {}
            }
            Ok(())
        })?;
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_and_what_makes_no_sense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seqinfo.ini");
        let text = "[Sequence]\r\nname=MOT17-04\r\nimDir = img1\r\nframeRate=29.97\r\nseqLength=1050\r\n\r\nimWidth=1920\r\nimHeight=1080\r\nimExt=.jpg\r\n";
        std::fs::write(&path, text).unwrap();
        let info = SequenceInfo::read(&path).unwrap();
        assert_eq!(info.frame_rate, Some(29.97));
        assert_eq!(
            (info.frames, info.width, info.height),
            (Some(1050), Some(1920), Some(1080))
        );
        for (text, word) in [
            ("frameRate", "no `=`"),
            ("frameRate=0", "frameRate is 0"),
            ("seqLength=10.5", "no count"),
            ("imWidth=wide", "`wide`"),
            ("imHeight=-1", "imHeight is -1"),
        ] {
            std::fs::write(&path, format!("[Sequence]\n{text}\n")).unwrap();
            let error = SequenceInfo::read(&path).unwrap_err().to_string();
            let told = ["seqinfo.ini line 2", word, "wanted"];
            assert!(told.iter().all(|w| error.contains(w)), "{error}");
        }
    }
}
