//! PyTorch's checkpoints: a zip with `data.pkl`, which names tensors, and one entry of raw numbers per storage.
//!
//! The pickle is read by candle's machine, which runs nothing. Taking it apart is ours: a checkpoint may be a dictionary of
//! dictionaries, hold views into shared storages, and be wrong in every way.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::pickle::{Object, Stack};
use reid_models::weights::Weights;
use zip::ZipArchive;

/// The first bytes of a zip.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
/// The first bytes of what `torch.save` wrote before PyTorch 1.6: the pickled number 0x1950a86a20f9469cfc6c.
pub(super) const LEGACY: &[u8] = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";

/// Where state dictionaries are kept, the best first: averaged weights are what papers test.
const KEYS: [&str; 10] = [
    "state_dict_ema",
    "model_ema",
    "ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "student",
    "network",
    "net",
];

/// A pickle is names and sizes; the numbers are beside it.
const LARGEST_PICKLE: u64 = 64 << 20;
/// More elements than any network here has in a tensor.
const LARGEST_TENSOR: usize = 1 << 30;

type Entries = [(Object, Object)];

/// The floating-point tensors of a checkpoint, and the keys that led to them (empty if the file is the dictionary itself).
///
/// # Errors
/// If the file can't be read, holds no dictionary of tensors, or is broken.
pub(super) fn read(path: &Path) -> Result<(Weights, String)> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    take_apart(file).with_context(|| format!("{}: not a usable PyTorch checkpoint", path.display()))
}

fn take_apart(file: File) -> Result<(Weights, String)> {
    let mut zip = ZipArchive::new(BufReader::new(file))?;
    let names = zip
        .file_names()
        .map(|f| f.map(|f| f.into_owned()))
        .collect::<Result<Vec<String>, _>>()?;
    let pickle = names
        .iter()
        .find(|n| *n == "data.pkl" || n.ends_with("/data.pkl"))
        .context("the zip holds no data.pkl")?;
    let root = pickle.trim_end_matches("data.pkl").to_string();
    let mut stack = Stack::empty();
    {
        let entry = zip.by_name(pickle)?.take(LARGEST_PICKLE);
        stack
            .read_loop(&mut BufReader::new(entry))
            .context("data.pkl")?;
    }
    let object = stack.finalize().context("data.pkl")?;
    let (entries, keys) = state_dict(&object)?;
    let mut weights = Weights::default();
    for (key, value) in entries {
        let (Object::Unicode(name), Some(view)) = (key, View::of(value)) else {
            continue;
        };
        let Some(element) = view.element() else {
            // Counters and indices.
            continue;
        };
        let entry = format!("{root}data/{}", view.storage);
        let mut bytes = Vec::new();
        zip.by_name(&entry)
            .and_then(|mut e| Ok(e.read_to_end(&mut bytes)?))
            .with_context(|| format!("tensor `{name}`: {entry}"))?;
        let data = view
            .gather(&bytes, element)
            .with_context(|| format!("tensor `{name}`: its size goes beyond its data"))?;
        weights.tensors.insert(name.clone(), (view.size, data));
    }
    ensure!(
        !weights.tensors.is_empty(),
        "its tensors are no floating-point numbers"
    );
    Ok((weights, keys))
}

/// The dictionary that holds tensors, looked for under [`KEYS`], and the way there, such as `model.state_dict`.
fn state_dict(object: &Object) -> Result<(&Entries, String)> {
    let mut way: Vec<&str> = Vec::new();
    let mut object = object;
    loop {
        let Object::Dict(entries) = object else {
            bail!(
                "it is a whole pickled object, not a dictionary of tensors; in PyTorch: torch.save(model.state_dict(), FILE)"
            );
        };
        if entries.iter().any(|(_, value)| View::of(value).is_some()) {
            return Ok((entries, way.join(".")));
        }
        let inner: Vec<(&str, &Object)> = entries
            .iter()
            .filter_map(|(key, value)| match (key, value) {
                (Object::Unicode(key), Object::Dict(_)) => Some((key.as_str(), value)),
                _ => None,
            })
            .collect();
        let known = KEYS
            .iter()
            .find_map(|key| inner.iter().find(|(name, _)| name == key));
        let Some((key, value)) = known else {
            let mut keys: Vec<&str> = entries
                .iter()
                .filter_map(|(key, _)| match key {
                    Object::Unicode(key) => Some(key.as_str()),
                    _ => None,
                })
                .collect();
            keys.sort_unstable();
            bail!(
                "it has no tensors and none of the keys {}, only: {}",
                KEYS.join(", "),
                keys.join(", ")
            );
        };
        way.push(key);
        object = value;
    }
}

/// A tensor as pickled: a view into a storage.
struct View {
    storage: String,
    class: String,
    offset: usize,
    size: Vec<usize>,
    stride: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Element {
    F64,
    F32,
    F16,
    Bf16,
}

impl View {
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)`, bare, in a Parameter or in a subclass.
    fn of(object: &Object) -> Option<View> {
        let (callable, args) = match object {
            Object::Reduce { callable, args } => (callable.as_ref(), args.as_ref()),
            Object::Build { callable, .. } => return View::of(callable),
            _ => return None,
        };
        let (Object::Class { class_name, .. }, Object::Tuple(args)) = (callable, args) else {
            return None;
        };
        match (class_name.as_str(), args.as_slice()) {
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [tensor, ..]) => {
                View::of(tensor)
            }
            ("_rebuild_from_type_v2", [callable, _, args, ..]) => View::of(&Object::Reduce {
                callable: Box::new(callable.clone()),
                args: Box::new(args.clone()),
            }),
            ("_rebuild_tensor_v2", [storage, offset, size, stride, ..]) => {
                let Object::PersistentLoad(storage) = storage else {
                    return None;
                };
                let Object::Tuple(storage) = storage.as_ref() else {
                    return None;
                };
                let [
                    _,
                    Object::Class { class_name, .. },
                    Object::Unicode(key),
                    ..,
                ] = storage.as_slice()
                else {
                    return None;
                };
                let (size, stride) = (numbers(size)?, numbers(stride)?);
                (size.len() == stride.len()).then_some(View {
                    storage: key.clone(),
                    class: class_name.clone(),
                    offset: number(offset)?,
                    size,
                    stride,
                })
            }
            _ => None,
        }
    }

    fn element(&self) -> Option<Element> {
        Some(match self.class.as_str() {
            "DoubleStorage" => Element::F64,
            "FloatStorage" => Element::F32,
            "HalfStorage" => Element::F16,
            "BFloat16Storage" => Element::Bf16,
            _ => return None,
        })
    }

    /// Elements row by row; `None` if one lies outside the storage.
    fn gather(&self, bytes: &[u8], element: Element) -> Option<Vec<f32>> {
        let count = self
            .size
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .filter(|n| *n <= LARGEST_TENSOR)?;
        let mut data = Vec::with_capacity(count.min(bytes.len()));
        let mut index = vec![0; self.size.len()];
        for _ in 0..count {
            let mut at = self.offset;
            for (i, stride) in index.iter().zip(&self.stride) {
                at = at.checked_add(stride.checked_mul(*i)?)?;
            }
            data.push(number_at(bytes, at, element)?);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.size[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Some(data)
    }
}

fn number_at(bytes: &[u8], at: usize, element: Element) -> Option<f32> {
    fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
        bytes.as_chunks::<N>().0.get(at).copied()
    }
    Some(match element {
        Element::F64 => f64::from_le_bytes(chunk(bytes, at)?) as f32,
        Element::F32 => f32::from_le_bytes(chunk(bytes, at)?),
        Element::F16 => half::f16::from_le_bytes(chunk(bytes, at)?).to_f32(),
        Element::Bf16 => half::bf16::from_le_bytes(chunk(bytes, at)?).to_f32(),
    })
}

fn number(object: &Object) -> Option<usize> {
    match object {
        Object::Int(n) => usize::try_from(*n).ok(),
        Object::Long(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}

fn numbers(object: &Object) -> Option<Vec<usize>> {
    match object {
        Object::Tuple(items) | Object::List(items) => items.iter().map(number).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Made by `tests/golden_data/checkpoints.py`.
    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden_data/checkpoints")
            .join(name)
    }

    #[test]
    fn every_wrapping_holds_the_same_tensors() {
        let expected = Weights::read(&golden("expected.safetensors")).unwrap();
        for (name, way) in [
            ("plain.pth", ""),
            ("torchreid.pth", "state_dict"),
            ("fastreid.pth", "model"),
            ("ema.pth", "teacher"),
            ("nested.pth", "model.state_dict"),
            ("parameters.pth", ""),
        ] {
            let (weights, keys) = read(&golden(name)).unwrap();
            assert_eq!(keys, way, "{name}");
            assert_eq!(weights, expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_state_dictionary_says_so() {
        for (name, part) in [
            ("unknown_key.pth", "only: epoch, weights"),
            ("module.pth", "torch.save(model.state_dict(), FILE)"),
            ("integers.pth", "no floating-point numbers"),
            ("expected.safetensors", "not a usable PyTorch checkpoint"),
        ] {
            let error = format!("{:#}", read(&golden(name)).unwrap_err());
            assert!(error.contains(part) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn broken_checkpoints_are_errors() {
        let whole = std::fs::read(golden("plain.pth")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.pth");
        for at in (0..whole.len()).step_by(7) {
            let mut bent = whole.clone();
            bent[at] ^= 0x55;
            std::fs::write(&path, &bent).unwrap();
            let _ = read(&path);
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path).is_err());
        }
    }

    #[test]
    fn a_view_outside_its_storage_is_refused() {
        let view = |offset, size: &[usize], stride: &[usize]| View {
            storage: "0".into(),
            class: "FloatStorage".into(),
            offset,
            size: size.into(),
            stride: stride.into(),
        };
        let bytes: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
        let gather = |v: View| v.gather(&bytes, Element::F32);
        assert_eq!(
            gather(view(1, &[2, 2], &[1, 2])),
            Some(vec![1.0, 3.0, 2.0, 4.0])
        );
        assert_eq!(gather(view(5, &[], &[])), Some(vec![5.0]));
        assert_eq!(gather(view(0, &[0, 3], &[3, 1])), Some(vec![]));
        assert_eq!(gather(view(4, &[3], &[1])), None);
        assert_eq!(gather(view(1, &[2], &[usize::MAX])), None);
        assert_eq!(gather(view(0, &[usize::MAX, 2], &[0, 0])), None);
    }
}
