// Every call of RunPod's JavaScript SDK against a server; prints what each gave, as one line of JSON.
// node runpod_sdk.mjs BASE_URL, in a folder whose node_modules has runpod-sdk.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const progress = [];
let onProgress = () => {};
console.log = (line) => { progress.push(line); onProgress(line); }; // the SDK prints how a job that it waits for goes on

const { resolve } = createRequire(pathToFileURL(`${process.cwd()}/`));
const { default: runpodSdk } = await import(pathToFileURL(resolve("runpod-sdk")));

const endpoint = runpodSdk("none", { baseUrl: process.argv[2] }).endpoint("local");
const prompt = { prompt: "The capital of France is", sampling_params: { max_tokens: 10, temperature: 0 } };
const story = { prompt: "Once upon a time", sampling_params: { max_tokens: 40, temperature: 0, ignore_eos: true } };
// Eight sequences, so that it takes longer than the 5 s after which executionTimeout ends it.
const endless = { prompt: "Once upon a time", sampling_params: { n: 8, max_tokens: 4000, ignore_eos: true } };

const given = {};
given.runSync = await endpoint.runSync({ input: prompt });

const { id } = await endpoint.run({ input: prompt });
given.statusSync = await endpoint.statusSync(id);
given.status = await endpoint.status(id);

const streamed = await endpoint.run({ input: { ...story, stream: true } });
given.stream = [];
for await (const item of endpoint.stream(streamed.id)) given.stream.push(item);

const long = await endpoint.run({ input: endless });
given.cancel = await endpoint.cancel(long.id);
given.cancelled = await endpoint.status(long.id);

given.health = await endpoint.health();
given.purgeQueue = await endpoint.purgeQueue();
given.failed = await endpoint.runSync({ input: { ...prompt, sampling_params: { temperature: -1 } } });

given.timedOut = await endpoint.runSync({ input: endless, policy: { executionTimeout: 5000 } });

// The SDK stops asking 3 s after its first answer, by this clock. The job ends by the first line that it prints.
progress.length = 0;
const stopped = Date.now();
Date.now = () => stopped;
onProgress = (line) => { if (line.endsWith(": IN_PROGRESS")) endpoint.cancel(line.split(":")[0]); };
given.unfinished = await endpoint.runSync({ input: endless, policy: { ttl: 600000 } }, 3000);
given.progress = progress;

process.stdout.write(`${JSON.stringify(given)}\n`);
