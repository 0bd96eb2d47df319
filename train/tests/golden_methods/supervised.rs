use reid_train::methods::Method;
use reid_train::methods::supervised::Supervised;
use reid_train::nn::schedule::{Decay, Schedule};

use super::harness::*;

const STUDENT: &str = "student";

#[test]
fn steps_of_supervised() {
    let golden = Golden::open("supervised");
    for case in ["step", "step_centre"] {
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let before = |name: &str| golden.get(&format!("{case}.before.{name}")).clone();
        let centres = case == "step_centre";
        let weight = if centres { hyper("centre_weight") } else { 0.0 };
        let sets = [
            format!("loss.smoothing={:.6}", hyper("smoothing")),
            format!("loss.triplet_margin={:.6}", hyper("margin")),
            format!("loss.centre_weight={weight:.6}"),
        ];
        let config = config("supervised", "supervised", &sets);
        let graph = tiny(Pool::Average, golden.picture(case));
        let net = net(&golden, graph, &format!("{case}.before.{STUDENT}"), 1);
        let mut method = Supervised::new(&config, net);
        let head = before("student.classifier.weight");
        method
            .set_heads(vec![(head, centres.then(|| before("centres")))])
            .unwrap();
        let groups = method.groups();
        let mut trained = groups[0].parameters.clone();
        let batch = golden.batch(case, "labels", &["view1"]);
        let (loss, grads) = step(&mut method, &batch, hyper("lr"), hyper("weight_decay"));
        let mut terms = vec![("ce", "identity"), ("triplet", "triplet")];
        if centres {
            terms.push(("centre", "centre"));
        }
        check_loss(&golden, case, &loss, &terms);
        check_gradients(&golden, &format!("{case}.grad.{STUDENT}"), &grads, &trained);
        trained.retain(|(name, _)| name == "classifier.weight");
        let (_, classifier) = trained.first().unwrap();
        let after = format!("{case}.after.{STUDENT}.classifier.weight");
        check_var(&golden, &after, classifier);
        check_net(&golden, case, STUDENT, method.network());
        if centres {
            let (_, own) = &groups[1].parameters[0];
            check_var(&golden, "step_centre.after.centres", own);
            let want = golden.values("step_centre.grad.centres");
            for (got, want) in flat(grads.get(own).unwrap()).iter().zip(&want) {
                assert!((got - want).abs() < 1e-8, "{got}, PyTorch {want}");
            }
        }
    }
}

#[test]
fn rates_of_supervised() {
    let golden = Golden::open("supervised");
    let config = config("supervised", "supervised", &[]).train;
    let schedule = Schedule {
        lr: 1.0,
        warmup_epochs: config.warmup_epochs,
        warmup_factor: config.warmup_factor,
        decay: Decay::MultiStep {
            milestones: config.milestones,
            gamma: config.gamma,
        },
    };
    let want = golden.values("schedule.mid.factors");
    assert_eq!(want.len(), config.epochs);
    for (epoch, want) in want.iter().enumerate() {
        let got = schedule.at(epoch as f64) as f32;
        assert!(
            (got - want).abs() < 1e-6,
            "epoch {epoch}: {got}, PyTorch {want}"
        );
    }
}
