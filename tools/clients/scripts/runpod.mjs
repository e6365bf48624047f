// RunPod's SDK for JavaScript.
import runpodSdk from "runpod-sdk";
import { API_KEY, BASE_URL, check, collect, expect, run } from "./checks.mjs";

const endpoint = runpodSdk(API_KEY, { baseUrl: `${BASE_URL}/v2` }).endpoint("local");
const prompt = { prompt: "The capital of France is", sampling_params: { max_tokens: 10, temperature: 0 } };
const long = { prompt: "Once upon a time", sampling_params: { n: 4, temperature: 1, max_tokens: 3000, ignore_eos: true } };

// The SDK prints how a job goes on that it waits for; a check's line has a word of its own at the front.
const print = console.log;
console.log = (line) => (/^(ok|FAIL) |^\d+ of/.test(line) ? print(line) : undefined);

const isParis = (job) => {
  expect(job.status === "COMPLETED", job);
  expect(JSON.stringify(job.output).includes("Paris"), job.output);
};

check("run_sync", async () => isParis(await endpoint.runSync({ input: prompt })));

check("run_and_status", async () => {
  const { id } = await endpoint.run({ input: prompt });
  isParis(await endpoint.statusSync(id));
  isParis(await endpoint.status(id));
});

check("stream", async () => {
  const { id } = await endpoint.run({ input: { ...prompt, stream: true } });
  expect((await collect(endpoint.stream(id))).length, "no items");
});

check("cancel", async () => {
  const { id } = await endpoint.run({ input: long });
  await endpoint.cancel(id);
  expect((await endpoint.status(id)).status === "CANCELLED", "not cancelled");
});

check("failed_job", async () => {
  const job = await endpoint.runSync({ input: { ...prompt, sampling_params: { temperature: -1 } } });
  expect(job.status === "FAILED" && job.error, job);
});

check("health", async () => expect((await endpoint.health()).workers, "no workers"));

check("purge_queue", async () => expect((await endpoint.purgeQueue()).status === "completed", "not completed"));

await run();
