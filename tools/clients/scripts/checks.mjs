// What the scripts for Node.js share: the service's address, common inputs, and checks that print one line each.
import { spawn } from "node:child_process";

export const { BASE_URL, API_KEY, MODEL } = process.env;
const TIMEOUT_MS = 180_000;

export const QUESTION = "What is the capital of France?";
export const WEATHER = "What is the weather in Paris?";
export const PERSON = "Extract the name and age: Alice is 30 years old.";
export const STORY = "Write a short story about a robot.";
export const LOCATION = {
  type: "object",
  properties: { location: { type: "string" } },
  required: ["location"],
  additionalProperties: false,
};
export const PERSON_SCHEMA = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};

const CHECKS = [];

// A check throws if something is wrong.
export const check = (name, call) => CHECKS.push([name, call]);

// Runs all checks in their order, and ends the process: some clients leave timers behind.
export async function run() {
  let passed = 0;
  for (const [name, call] of CHECKS) {
    try {
      await within(call());
      passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`FAIL ${name}: ${reason(error)}`);
    }
  }
  console.log(`${passed} of ${CHECKS.length}`);
  process.exit(0);
}

const reason = (error) => `${error?.name ?? "Error"}: ${error?.message ?? error}`.replace(/\s+/g, " ").slice(0, 300);

function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end within ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export function expect(holds, message) {
  if (!holds) throw new Error(typeof message === "string" ? message : JSON.stringify(message));
}

export function isText(text, part = "") {
  expect(text, `no text: ${JSON.stringify(text)}`);
  expect(text.includes(part), `no '${part}' in ${text.slice(0, 200)}`);
}

export function isLocation(value) {
  const found = typeof value === "string" ? JSON.parse(value) : value;
  expect(typeof found?.location === "string", `no location: ${JSON.stringify(value)}`);
}

export function isPerson(value) {
  const found = typeof value === "string" ? JSON.parse(value) : value;
  expect(found?.name === "Alice" && found?.age === 30, `not Alice, 30: ${JSON.stringify(value)}`);
}

// The error that a call must throw.
export async function thrown(call) {
  let answer;
  try {
    answer = await call();
  } catch (error) {
    return error;
  }
  throw new Error(`no error but an answer: ${JSON.stringify(answer)?.slice(0, 200)}`);
}

// A prompt of more words than the model's context has tokens.
export async function tooLong() {
  const headers = { Authorization: `Bearer ${API_KEY}` };
  const models = await (await fetch(`${BASE_URL}/v1/models`, { headers })).json();
  return "word ".repeat(models.data[0].max_model_len + 100);
}

export async function collect(iterable) {
  const found = [];
  for await (const each of iterable) found.push(each);
  return found;
}

// Runs a program without input, no longer than the limit; gives its exit code (null: ended by the limit) and what it printed.
export function program(command, args, env, timeout = TIMEOUT_MS) {
  return new Promise((resolve, reject) => {
    const options = { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"], timeout };
    const child = spawn(command, args, options);
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (part) => (stdout += part));
    child.stderr.on("data", (part) => (stderr += part));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

// The objects of an output with one JSON object a line; other lines are left out.
export const jsonLines = (text) => text.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
