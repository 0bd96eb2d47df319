//! What a file says about itself, without running it.

use std::fmt;
use std::path::{Path, PathBuf};

use reid_models::ModelCard;
use reid_models::card::CardError;
use reid_models::runtime::OnnxFile;
use reid_models::runtime::file::TensorInfo;
use serde::Serialize;

use crate::ExportError;

/// An input or output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type.
    pub element: String,
    /// Shape with the batch axis; a name stands for an axis of any length.
    pub shape: String,
}

/// A file's description.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Program that wrote it.
    pub producer: String,
    /// Version of the format.
    pub ir_version: i64,
    /// Operator set.
    pub opset: i64,
    /// Operators.
    pub nodes: usize,
    /// Weight elements.
    pub weight_elements: usize,
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Whether the file carries a probe.
    pub probe: bool,
    /// The card, from the file or from beside it; absent if there is none.
    pub card: Option<ModelCard>,
}

/// Reads a file's description.
///
/// # Errors
/// If it is no ONNX file, or its card is broken. A missing card is no error.
pub fn inspect(path: &Path) -> Result<Inspection, ExportError> {
    let file = OnnxFile::read(path)?;
    let card = match file.card(path) {
        Ok(card) => Some(card),
        Err(CardError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let ports = |tensors: &[TensorInfo]| tensors.iter().map(port).collect();
    Ok(Inspection {
        file: path.to_path_buf(),
        bytes: file.bytes,
        producer: file.producer.clone(),
        ir_version: file.ir_version,
        opset: file.opset,
        nodes: file.nodes,
        weight_elements: file.weight_elements,
        inputs: ports(&file.inputs),
        outputs: ports(&file.outputs),
        probe: card.is_some() && file.probe(path).is_ok_and(|p| p.is_some()),
        card,
    })
}

fn port(info: &TensorInfo) -> Port {
    Port {
        name: info.name.clone(),
        element: format!("{:?}", info.element).to_lowercase(),
        shape: info.shape_text(),
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.bytes as f64 / f64::from(1 << 20);
        writeln!(f, "{} ({mebibytes:.1} MiB)", self.file.display())?;
        writeln!(
            f,
            "  ONNX      IR {}, opset {}, {} nodes, {} weight elements, by {}",
            self.ir_version,
            self.opset,
            self.nodes,
            self.weight_elements,
            if self.producer.is_empty() {
                "an unnamed program"
            } else {
                &self.producer
            }
        )?;
        for (kind, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for port in ports {
                writeln!(
                    f,
                    "  {kind:<9} {} {} {}",
                    port.name, port.element, port.shape
                )?;
            }
        }
        writeln!(f, "  probe     {}", if self.probe { "yes" } else { "no" })?;
        match &self.card {
            None => write!(
                f,
                "  card      none: describe the model with `reid-export adopt {} --task embed|detect|pose ...`",
                self.file.display()
            ),
            Some(card) => {
                writeln!(f, "  card")?;
                for line in card.to_json().lines() {
                    writeln!(f, "    {line}")?;
                }
                Ok(())
            }
        }
    }
}
