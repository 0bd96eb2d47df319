//! Changes to the cameras, asked for by visitors and made by the pipeline between two frames.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;

/// How long a visitor waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that may wait.
const WAITING: usize = 16;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The cameras there are, without credentials.
    List,
    /// Adds a camera, or changes the one of the same name: the keys of a `[[camera]]` as a JSON object.
    Put(Value),
    /// Removes the camera of this name.
    Remove(String),
    /// Reads the configuration again, as SIGHUP does.
    Reload,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done; what there is to tell.
    Done(Value),
    /// Not done: the camera's description is wrong.
    Refused(String),
    /// There is no camera of this name.
    Unknown(String),
    /// Nobody had time to answer.
    Busy,
}

/// The asking side; a clone asks the same pipeline.
#[derive(Clone)]
pub struct Control {
    questions: Sender<Question>,
}

/// A command and where its answer goes.
pub struct Question {
    /// What is asked for.
    pub command: Command,
    reply: Sender<Answer>,
}

impl Question {
    /// Answers; whoever asked may have gone.
    pub fn answer(self, answer: Answer) {
        let _ = self.reply.try_send(answer);
    }
}

/// Both sides: whoever asks, and the questions.
pub fn control() -> (Control, Receiver<Question>) {
    let (questions, asked) = bounded(WAITING);
    (Control { questions }, asked)
}

impl Control {
    /// Asks and waits for the answer.
    pub fn ask(&self, command: Command) -> Answer {
        let (reply, answer) = bounded(1);
        let question = Question { command, reply };
        if self.questions.send_timeout(question, PATIENCE).is_err() {
            return Answer::Busy;
        }
        answer.recv_timeout(PATIENCE).unwrap_or(Answer::Busy)
    }
}
