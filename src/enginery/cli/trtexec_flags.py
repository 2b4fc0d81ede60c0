"""Every flag of trtexec from TensorRT 8 to 11: what it takes, and what it means here or why it is refused."""

from __future__ import annotations

from enginery.cli.flags import Flag, Tool

__all__ = ["TRTEXEC", "idle_in"]

_CALIBRATE = "quantise the model with recorded data first; its Q/DQ nodes are then built as they stand"
_VERIFY = "compare with `enginery verify ENGINE MODEL --data FILE`"
_OUT = "leave it out"
_ONNX = "convert the model to ONNX, or name its framework's file to `enginery build`"


def _refused(reason: str, mend: str, versions: str, *spellings: str) -> tuple[Flag, ...]:
    """Make flags that are refused for one reason; each is spelt as its tool's help spells it."""
    parts = (spelling.partition("=") for spelling in spellings)
    return tuple(Flag(name, takes, reason, versions=versions, mend=mend, repeats=True) for name, _, takes in parts)


_MODEL = (
    Flag("onnx", "FILE", "the model to build from", sets="onnx"),
    Flag("saveEngine", "FILE", "the plan exactly as TensorRT serialises it; FILE.engine beside it is the engine folder "
         "that the other commands take", sets="save"),
    Flag("loadEngine", "FILE", "measure this plan or engine folder; a plan is code, so take none from strangers",
         sets="load"),
    *_refused("models of Caffe and UFF are read by no TensorRT since 9", _ONNX, "7-8",
              "model=FILE", "deploy=FILE", "uff=FILE", "uffInput=SPEC", "uffNHWC", "output=NAME"),
)  # fmt: skip

_SHAPES = (
    Flag("minShapes", "SPEC", "smallest sizes of the profile: the min of --shapes of `enginery build`", repeats=True),
    Flag("optShapes", "SPEC", "sizes to be fast at; alone, the only sizes", repeats=True),
    Flag("maxShapes", "SPEC", "largest sizes of the profile", repeats=True),
    Flag("shapes", "SPEC", "sizes that are measured; without --optShapes, the only sizes of the engine too",
         repeats=True),
    Flag("profile", "N", "the shapes that follow are those of profile N", versions="10-11", repeats=True),
    *_refused("calibration profiles serve calibrators, which TensorRT 11 has no more", _CALIBRATE, "8-10",
              "minShapesCalib=SPEC", "optShapesCalib=SPEC", "maxShapesCalib=SPEC"),
    *_refused("every ONNX model has explicit batches", "give --minShapes, --optShapes and --maxShapes", "7-8",
              "batch=N", "maxBatch=N"),
    Flag("explicitBatch", "", "as it always is: the batch is an axis of the shapes", versions="7-8"),
)  # fmt: skip

_PRECISION = (
    Flag("fp16", "", "precision fp16 for the whole graph", versions="8-10"),
    Flag("bf16", "", "precision bf16 for the whole graph", versions="10"),
    Flag("int8", "", "precision int8 for what the graph's Q/DQ nodes quantise, and fp16 for the rest where --fp16 "
         "stands beside it; trtexec's made-up ranges are not offered", versions="8-10"),
    Flag("fp8", "", "precision fp8 for what the graph's Q/DQ nodes quantise", versions="8-10"),
    Flag("best", "", "precision best: each precision is built, verified against the model and timed, and the fastest "
         "right one is kept", versions="8-10"),
    Flag("noTF32", "", "precision fp32: no TF32 in its place"),
    Flag("stronglyTyped", "", "the types that stand in the graph: what is always so from TensorRT 10 on",
         versions="10-11"),
    Flag("precisionConstraints", "obey", "each node's precision is obeyed, or the build fails", versions="8-10"),
    Flag("layerPrecisions", "SPEC", "precision of single nodes by their ONNX names, * for all others",
         versions="8-10", repeats=True),
    *_refused("a node has one precision here, and its outputs have it too", "give --layerPrecisions", "8-10",
              "layerOutputTypes=SPEC"),
    *_refused("int4 weights stand in the graph", "quantise the weights first, and leave the flag out", "10", "int4"),
    *_refused("calibration caches belong to calibrators, which TensorRT 11 has no more", _CALIBRATE, "8-10",
              "calib=FILE"),
    Flag("inputIOFormats", "SPEC", "types of the inputs: checked to be the model's, in linear (chw) layout"),
    Flag("outputIOFormats", "SPEC", "types of the outputs: checked to be the model's, in linear (chw) layout"),
    *_refused("inputs and outputs are linear here", _OUT, "8-11", "directIO"),
)  # fmt: skip

_BUILD = (
    Flag("workspace", "N", "option workspace_mib: memory of the builder's kernels, in MiB", versions="7-8"),
    Flag("memPoolSize", "SPEC", "workspace:SIZE is option workspace_mib; MiB where no unit stands", repeats=True),
    Flag("timingCacheFile", "FILE", "option timing_cache: timings of kernels, read and written there"),
    Flag("noBuilderCache", "", "option timing_cache=off"),
    Flag("builderOptimizationLevel", "N", "option optimization_level, 0 to 5", sets="option:optimization_level"),
    Flag("avgTiming", "N", "option average_timing: how often each kernel is timed", sets="option:average_timing"),
    Flag("maxAuxStreams", "N", "option max_aux_streams", sets="option:max_aux_streams"),
    Flag("tacticSources", "SPEC", "option tactic_sources, such as -CUBLAS,+JIT_CONVOLUTIONS",
         sets="option:tactic_sources"),
    Flag("refit", "", "option refit=yes: weights may be changed later"),
    Flag("stripWeights", "", "options strip_weights and, without --refit, refit=identical", versions="10-11"),
    Flag("stripAllWeights", "", "options strip_weights and refit=yes", versions="10-11"),
    Flag("versionCompatible", "", "option version_compatible: for later versions too; a plan that "
         "is loaded may then run the host code it brings", ("vc",),
         sets="option:version_compatible"),
    Flag("excludeLeanRuntime", "", "option exclude_lean_runtime", sets="option:exclude_lean_runtime"),
    Flag("hardwareCompatibilityLevel", "none|ampere+|sameComputeCapability", "option hardware_compatibility"),
    Flag("sparsity", "disable|enable", "option sparse_weights"),
    Flag("allowWeightStreaming", "", "option weight_streaming", versions="10-11", sets="option:weight_streaming"),
    Flag("profilingVerbosity", "detailed", "as it always is here: the inspector is asked what was built"),
    Flag("skipInference", "", "build, and measure nothing", ("buildOnly",)),
    *_refused("it has done nothing since TensorRT 8.4", "give --avgTiming", "7-8", "minTiming=N"),
    *_refused("this knob of the builder is no option here", _OUT, "10-11", "tilingOptimizationLevel=N",
              "l2LimitForTiling=N", "maxTactics=N", "noCompilationCache", "errorOnTimingCacheMiss", "preview=SPEC",
              "decomposableAttentions=SPEC", "setBuildRoute=ROUTE", "runtimePlatform=PLATFORM", "monitorMemory"),
    *_refused("the parser is used as it comes", _OUT, "10-11", "pluginInstanceNorm", "pi", "enablePluginOverride",
              "uint8AsymmetricQuantizationDLA", "reportCapabilityDLA", "adjustForDLA"),
    *_refused("safety-certified engines are not built here", "use NVIDIA's own tools for them", "8-11", "safe",
              "consistency", "restricted", "dumpKernelText", "remoteAutoTuningConfig=URL", "cpuOnly",
              "safetyPlugins=FILE", "buildDLAStandalone"),
    *_refused("routes of the builder are not searched here", "try --builderOptimizationLevel=5, or `enginery optimize`",
              "11", "tuneBuildRoutes=EXPR", "tuneBuildRouteFile=FILE", "tuningSearch=SPEC", "tuningCacheFile=FILE",
              "tuningTimeOut=SECONDS", "saveAllEngines", "dryRun", "continue", "helpBuildRoute"),
    *_refused("debug tensors are not offered", "compare with the model by `enginery verify`", "10-11",
              "markDebug=NAMES", "markUnfusedTensorsAsDebugTensors", "saveDebugTensors=SPEC",
              "saveAllDebugTensors=SPEC"),
)  # fmt: skip

_SYSTEM = (
    Flag("device", "N", "option device: number of the GPU", sets="option:device"),
    Flag("useDLACore", "N", "option dla_core", sets="option:dla_core"),
    Flag("allowGPUFallback", "", "option gpu_fallback", sets="option:gpu_fallback"),
    Flag("plugins", "FILE", "option plugins: a library loaded before the model is read; it is code",
         ("staticPlugins", "dynamicPlugins"), repeats=True),
    *_refused("plugin libraries are not put into the engine", "give --plugins when building and when loading", "8-11",
              "setPluginsToSerialize=FILE", "ignoreParsedPluginLibs"),
    *_refused("nodes are not placed one by one", "give --useDLACore and --allowGPUFallback", "8-11",
              "layerDeviceTypes=SPEC"),
    *_refused("engines run with the full runtime", _OUT, "8-11", "useRuntime=NAME", "leanDLLPath=FILE",
              "tempdir=FOLDER", "tempfileControls=SPEC", "asyncFileReader"),
)  # fmt: skip

_INFERENCE = (
    Flag("loadInputs", "SPEC", "name:file of raw bytes in the input's own type and shape; random where none is given",
         repeats=True),
    Flag("iterations", "N", "at least so many queries are measured (10)", sets="whole:iterations"),
    Flag("duration", "N", "measure at least so many seconds (3)", sets="number:duration_s"),
    Flag("warmUp", "N", "run for so many milliseconds first, uncounted (200)", sets="number:warmup_ms"),
    Flag("idleTime", "N", "sleep so many milliseconds between two queries (0)", sets="number:idle_ms"),
    Flag("infStreams", "N", "so many queries at one time, each with a context and streams of its own (1)",
         ("streams",), sets="whole:streams"),
    Flag("threads", "", "a thread for each of --infStreams", sets="switch:threads"),
    Flag("exposeDMA", "", "one query after another: its copies overlap with nothing", sets="switch:expose_dma"),
    Flag("noDataTransfers", "", "no copies between host and device are measured"),
    Flag("includeDataTransfers", "", "copies between host and device are measured too", versions="11"),
    Flag("useSpinWait", "", "option spin: wait with a busy processor"),
    Flag("noSpinWait", "", "option spin=false", versions="11"),
    Flag("useCudaGraph", "", "option cuda_graph: a query is captured once and replayed"),
    Flag("noCudaGraph", "", "option cuda_graph=false", versions="11"),
    Flag("weightStreamingBudget", "SIZE", "option weight_budget_mib: memory of the device for weights; -1 is "
         "TensorRT's own choice", versions="10-11"),
    Flag("timeDeserialize", "", "time the loading of the plan, and measure nothing else", sets="switch:only_load"),
    *_refused("nothing is put between the launch of a query and its compute", "give --idleTime", "8-11", "sleepTime=N"),
    *_refused("buffers of host and device are apart here", _OUT, "8-11", "useManagedMemory"),
    *_refused("the profile is chosen by the shapes that are measured", "give --shapes", "10-11", "useProfile=N"),
    *_refused("this knob of the runtime is no option here", _OUT, "8-11", "persistentCacheRatio=R",
              "allocationStrategy=SPEC"),
    *_refused("refitting is its own step here", "leave it out", "8-11", "timeRefit", "refitFromOnnx", "dumpRefit"),
    *_refused("accuracy is another command's work", _VERIFY, "11", "loadRefOutputs=SPEC", "accuracyAlgorithm=NAME",
              "atol=X", "rtol=X", "accuracyThreshold=X", "refPair=N"),
)  # fmt: skip

_REPORTS = (
    Flag("verbose", "", "show TensorRT's own log, and what each figure means; builds in this process",
         sets="switch:verbose"),
    Flag("avgRuns", "N", "average over so many queries in the trace (10)", sets="whole:average_runs"),
    Flag("percentile", "P,P,...", "percentiles of each row (90,95,99)"),
    Flag("dumpOutput", "", "print the outputs of the last query", sets="switch:dump_output"),
    Flag("exportOutput", "FILE", "write the outputs as JSON", sets="export_output"),
    Flag("dumpProfile", "", "print the time of each layer, from a run of its own", sets="switch:dump_profile"),
    Flag("exportProfile", "FILE", "write the time of each layer as JSON", sets="export_profile"),
    Flag("separateProfileRun", "", "as it always is: layers are timed in a run of their own"),
    Flag("dumpLayerInfo", "", "print the layers that were built", sets="switch:dump_layers"),
    Flag("exportLayerInfo", "FILE", "write the layers that were built as JSON", sets="export_layers"),
    Flag("exportTimes", "FILE", "write the times of each query as JSON, with trtexec's names", sets="export_times"),
    Flag("getPlanVersionOnly", "", "print the version that wrote the plan of --loadEngine", versions="8-11",
         sets="switch:only_version"),
    *_refused("profiles are shown by another command", "run `enginery inspect ENGINE`", "10-11",
              "dumpOptimizationProfile"),
    *_refused("raw bytes of outputs are written by another command", "run `enginery run ENGINE INPUT -o out.npz`",
              "10-11", "dumpRawBindingsToFile"),
    Flag("help", "", "print this", ("h",)),
)  # fmt: skip

_OWN = (
    Flag("backend", "NAME", "the library that builds and runs; also the variable ENGINERY_TRTEXEC_BACKEND",
         versions="", sets="backend"),
    Flag("timeLimit", "SECONDS", "most time that the build may take (a day)", versions="", sets="number:limit_s"),
    Flag("inProcess", "", "build in this process, where a debugger can follow", versions="", sets="switch:in_process"),
    Flag("json", "", "print the record as JSON, and nothing else on stdout", versions=""),
)  # fmt: skip

TRTEXEC = Tool(
    "trtexec",
    (
        ("Model and engine", _MODEL),
        ("Shapes", _SHAPES),
        ("Precision", _PRECISION),
        ("Build", _BUILD),
        ("System", _SYSTEM),
        ("Measuring", _INFERENCE),
        ("Reports", _REPORTS),
        ("Enginery's own", _OWN),
    ),
)

_BUILDING = frozenset(
    flag.name
    for flag in (*_SHAPES, *_PRECISION, *_BUILD, *_OWN)
    if flag.name not in ("shapes", "skipInference", "backend", "json", "versionCompatible")
)
_MEASURED = frozenset(flag.name for flag in _INFERENCE) | frozenset(
    ("avgRuns", "percentile", "dumpOutput", "exportOutput", "dumpProfile", "exportProfile", "exportTimes")
)


def idle_in(flag: Flag, *, loads: bool, measures: bool) -> str:
    """Say why a flag does nothing in this line; empty where it does something.

    Example:
        >>> idle_in(next(flag for flag in TRTEXEC.flags if flag.name == "fp16"), loads=True, measures=True)
        'nothing, for a plan is loaded here and none is built'
    """
    if loads and flag.name in _BUILDING:
        return "nothing, for a plan is loaded here and none is built"
    if not measures and flag.name in _MEASURED:
        return "nothing, for this line only builds"
    return ""
