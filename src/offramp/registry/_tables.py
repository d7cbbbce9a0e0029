"""The tables, one line for each name; nothing is imported before it is used."""

from __future__ import annotations

from offramp.registry._table import Entry, Table

BACKBONES = Table(
    "backbone family",
    {
        "vit": Entry(
            "offramp.backbones.vit:ViTBackbone",
            "Vision Transformers of timm's VisionTransformer class, DeiT included; cut after every block",
            "2010.11929, 2012.12877",
        ),
        "swin": Entry("offramp.backbones.swin:SwinBackbone", "Swin Transformers, cut after every block", "2103.14030"),
        "maxxvit": Entry(
            "offramp.backbones.maxxvit:MaxxVitBackbone",
            "CoAtNets and MaxViTs, cut after every block",
            "2106.04803, 2204.01697",
        ),
        "resnet": Entry("offramp.backbones.cnn:ResNetBackbone", "ResNets, cut after every block", "1512.03385"),
        "densenet": Entry("offramp.backbones.cnn:DenseNetBackbone", "DenseNets, cut after every layer", "1608.06993"),
        "inception": Entry("offramp.backbones.cnn:InceptionBackbone", "Inception-v3, cut after a block", "1512.00567"),
        "graph": Entry(
            "offramp.backbones.graph:GraphBackbone",
            "any other timm model, cut by torch.fx at the modules that timm's feature_info names",
        ),
    },
)

HEADS = Table(
    "head",
    {
        "linear": Entry(
            "offramp.heads.linear:Linear",
            "norm, then the tokens that the backbone itself reads (class token, or the mean of the patches), one layer",
            "baseline",
        ),
        "mlp": Entry(
            "offramp.heads.mlp:MLP",
            "the class token through a perceptron with two hidden layers",
            "2106.15183",
        ),
        "cnn-ignore": Entry(
            "offramp.heads.cnn:CNNIgnore",
            "patches as a map through one convolution, then a perceptron; class token ignored",
            "2106.15183",
        ),
        "cnn-add": Entry("offramp.heads.cnn:CNNAdd", "the same, class token added to every patch", "2106.15183"),
        "cnn-project": Entry(
            "offramp.heads.cnn:CNNProject", "the same, class token joined to every patch and projected", "2106.15183"
        ),
        "vit": Entry(
            "offramp.heads.vit:ViT", "one more encoder block, then a perceptron on the class token", "2106.15183"
        ),
        "mixer": Entry(
            "offramp.heads.mixer:Mixer",
            "one MLP-Mixer block, then a perceptron on the mean of the tokens",
            "2106.15183",
        ),
        "resmlp": Entry(
            "offramp.heads.resmlp:ResMLP", "one ResMLP layer, then a perceptron on the mean of the tokens", "2106.15183"
        ),
        "lph": Entry(
            "offramp.heads.lph:LPH",
            "local perception: convolutions over the patch map, for shallow exits",
            "2308.00255",
        ),
        "gah": Entry(
            "offramp.heads.gah:GAH",
            "global aggregation: attention among every second or third patch, for deep exits",
            "2308.00255",
        ),
        "sl-vit": Entry(
            "offramp.heads.slvit:SLViT", "one narrow encoder layer on patches of the feature map", "2105.09121"
        ),
        "density": Entry(
            "offramp.heads.density:Density",
            "dilated convolutions over the patch map, to a map whose sum is a number of things",
            "1802.10062",
        ),
        "lens": Entry(
            "offramp.heads.lens:Lens",
            "what a head adds to the summary, through a frozen copy of the backbone's own norm and classifier",
            "2303.08112",
        ),
    },
    group="heads",
)

OBJECTIVES = Table(
    "objective",
    {
        "joint": Entry(
            "offramp.training.objectives.joint:Joint",
            "backbone and exits together, on a weighted sum of their losses",
            "1709.01686, 2106.15183",
        ),
        "gradient-equilibrium": Entry(
            "offramp.training.objectives.equilibrium:GradientEquilibrium",
            "joint, with each block's gradient the mean over the exits behind it",
            "1908.06294",
        ),
        "self-distillation": Entry(
            "offramp.training.objectives.self_distillation:SelfDistillation",
            "joint, with the final exit teaching the others",
            "1905.08094",
        ),
        "alternating": Entry(
            "offramp.training.objectives.alternating:Alternating",
            "the final exit alone and all exits together, step by step in turn",
            "BERxiT, EACL 2021",
        ),
        "alternating-weighted": Entry(
            "offramp.training.objectives.alternating:AlternatingWeighted",
            "the same, exits weighted by depth: LGViT's first stage",
            "2308.00255",
        ),
        "backbone": Entry(
            "offramp.training.objectives.backbone:Backbone", "the final exit alone; heads do not run", "baseline"
        ),
        "frozen": Entry(
            "offramp.training.objectives.frozen:Frozen",
            "heads only, each on its own loss; the backbone does not change by one bit",
            "2106.15183, 2105.09121",
        ),
        "layerwise": Entry(
            "offramp.training.objectives.layerwise:Layerwise",
            "exit by exit from the first to the last, all before it frozen",
            "2106.15183",
        ),
        "mixed": Entry("offramp.training.objectives.mixed:Mixed", "the backbone first, then everything", "2407.14320"),
        "fine-tune": Entry(
            "offramp.training.objectives.fine_tune:FineTune",
            "the backbone on its new task, then head-distillation on what it has become",
            "2308.00255",
        ),
        "lgvit": Entry(
            "offramp.training.objectives.lgvit:LGViT",
            "two stages: alternating-weighted, then distillation into the heads",
            "2308.00255",
        ),
        "head-distillation": Entry(
            "offramp.training.objectives.lgvit:HeadDistillation",
            "heads only, taught by the frozen backbone and by each other: LGViT's second stage",
            "2308.00255",
        ),
        "mt-vit": Entry(
            "offramp.training.objectives.mt_vit:MTViT",
            "all tails, exits and the router together; the choice by straight-through Gumbel-Softmax",
            "2203.01587",
        ),
        "mt-vit-supervised": Entry(
            "offramp.training.objectives.mt_vit:MTViTSupervised",
            "the router alone, from an exit table: the cheapest path that is right",
            "2307.02092",
        ),
        "copycat": Entry(
            "offramp.training.objectives.copycat:Copycat",
            "heads only, first on unlabelled images that the backbone labels, then on true labels",
            "2105.09121, 1806.05476",
        ),
    },
    group="objectives",
)

WEIGHTINGS = Table(
    "weighting",
    {
        "uniform": Entry("offramp.training.objectives.weightings:uniform", "every exit counts the same"),
        "depth": Entry(
            "offramp.training.objectives.weightings:depth", "an exit counts as much as the blocks it has seen"
        ),
        "final-doubled": Entry(
            "offramp.training.objectives.weightings:final_doubled", "the final exit counts twice", "2106.15183"
        ),
    },
    group="weightings",
)

POLICIES = Table(
    "policy",
    {
        "threshold": Entry(
            "offramp.policies.threshold:Threshold",
            "leave at the first exit whose score reaches its threshold",
            "1709.01686, 2308.00255",
        ),
        "patience": Entry(
            "offramp.policies.patience:Patience", "leave when exits have agreed often enough in a row", "2006.04152"
        ),
        "patient-confident": Entry(
            "offramp.policies.patience:PatientConfident",
            "leave when exits have been sure often enough in a row",
            "PCEE-BERT, 2308.00255",
        ),
        "vote": Entry(
            "offramp.policies.vote:Vote", "leave when enough of the exits so far give one answer", "2301.07099"
        ),
        "ensemble": Entry(
            "offramp.policies.ensemble:Ensemble",
            "leave when the geometric mean of the exits so far is sure; it answers",
            "2106.05409",
        ),
        "cascade": Entry(
            "offramp.policies.cascade:Cascade",
            "leave where an exit is sure that also hears the logits of the exit before",
            "2106.05409",
        ),
        "reliability": Entry(
            "offramp.policies.reliability:Reliability",
            "leave where the exit's validated accuracy at this score is high enough",
            "2412.19325",
        ),
        "gates": Entry("offramp.policies.gates:Gates", "a logistic gate per exit, on four scores", "2310.09163"),
        "scheduler": Entry(
            "offramp.policies.scheduler:Scheduler", "a learned score per exit, thresholds by quota", "2301.07099"
        ),
        "expected-error": Entry(
            "offramp.policies.expected_error:ExpectedError",
            "for numbers: leave where the error that a small model expects is small enough",
        ),
        "forced": Entry(
            "offramp.policies.forced:Forced",
            "leave at an exit that was fixed beforehand; measures the engine apart from the accuracy",
        ),
    },
    group="policies",
)

RUNTIMES = Table(
    "runtime",
    {
        "torch": Entry("offramp.engine.torch:TorchRuntime", "PyTorch, eager, on the device that holds the model"),
        "torch-compiled": Entry("offramp.engine.torch:CompiledRuntime", "PyTorch, every piece compiled"),
        "onnxruntime": Entry("offramp.engine.onnxruntime:OnnxRuntime", "ONNX Runtime, one self-exiting file"),
        "openvino": Entry("offramp.engine.openvino:OpenVinoRuntime", "OpenVINO, the same file, in fp32 or bf16"),
    },
    group="runtimes",
)

TASKS = Table(
    "task",
    {
        "classification": Entry("offramp.tasks.classification:Classification", "one class of several; accuracy"),
        "counting": Entry(
            "offramp.tasks.counting:Counting", "one number; mean absolute error", "2105.09121, 2106.15183"
        ),
        "density": Entry(
            "offramp.tasks.density:Density", "a map whose sum is the number; mean absolute error", "2005.07097"
        ),
    },
    group="tasks",
)

MODELS = Table(
    "model in the box",
    {
        "cifar10": Entry(
            "offramp.models:CIFAR10",
            "CoAtNet with four linear exits for the ten classes of CIFAR-10; trained by recipes/cifar10.yaml",
            "2106.04803, 1905.08094",
        ),
    },
)

INPUTS = Table(
    "input",
    {
        "image": Entry("offramp.inputs.image:ImageInput", "an image, prepared by timm's transforms"),
        "points": Entry(
            "offramp.inputs.points:PointsInput",
            "an image with points on it, which move with it in training: for counting",
            "2005.07097",
        ),
        "log-mel": Entry(
            "offramp.inputs.log_mel:LogMelInput", "a clip of sound as a log-mel image, by torchaudio", "2105.09121"
        ),
        "pair": Entry(
            "offramp.inputs.pair:PairInput", "an image and the clip of sound that belongs to it", "2105.09121"
        ),
    },
    group="inputs",
)

PATHS = Table(
    "path",
    {
        "tail": Entry(
            "offramp.paths.tail:Tail", "another patch embedding, and so another number of tokens", "2203.01587"
        ),
    },
    group="paths",
)

LINKS = Table(
    "link",
    {
        "none": Entry("offramp.paths.links:none", "every path begins with the sample alone"),
        "upsample": Entry(
            "offramp.paths.links:Upsample", "a perceptron on every patch, repeated to the next grid", "2203.03821"
        ),
        "recycle": Entry(
            "offramp.paths.links:Recycle", "all tokens through one layer, times a number that starts at 0", "2507.10800"
        ),
    },
    group="links",
)

ROUTERS = Table(
    "router",
    {
        "fixed": Entry("offramp.paths.routers:Fixed", "one path for all, by the bias: for a budget that is known"),
        "cnn": Entry(
            "offramp.paths.routers:TailPredictor",
            "MT-ViT's tail predictor: a small convolutional network on a reduced image",
            "2203.01587",
        ),
        "exit": Entry(
            "offramp.paths.routers:ExitRouter", "a head after an early block of the cheapest path; no stem of its own"
        ),
    },
    group="routers",
)

TABLES: dict[str, Table] = {
    "heads": HEADS,
    "backbones": BACKBONES,
    "policies": POLICIES,
    "objectives": OBJECTIVES,
    "weightings": WEIGHTINGS,
    "runtimes": RUNTIMES,
    "tasks": TASKS,
    "inputs": INPUTS,
    "paths": PATHS,
    "links": LINKS,
    "routers": ROUTERS,
    "models": MODELS,
}
