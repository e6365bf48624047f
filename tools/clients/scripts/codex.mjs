// Codex's command, without a terminal. CODEX_SETTINGS has further settings for `-c`, with blanks between them.
import { mkdirSync, writeFileSync } from "node:fs";
import { API_KEY, BASE_URL, MODEL, PERSON, PERSON_SCHEMA, QUESTION } from "./checks.mjs";
import { check, expect, isText, jsonLines, program, run } from "./checks.mjs";

const folder = import.meta.dirname;
const home = `${folder}/home/codex`;
const work = `${folder}/home/work`;
for (const each of [home, work]) mkdirSync(each, { recursive: true });
writeFileSync(
  `${home}/config.toml`,
  `model = "${MODEL}"
model_provider = "served"
[model_providers.served]
name = "served"
base_url = "${BASE_URL}/v1"
env_key = "SERVED_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
`,
);
const settings = (process.env.CODEX_SETTINGS ?? "").split(" ").filter(Boolean).flatMap((each) => ["-c", each]);

async function codex(...args) {
  const given = ["exec", "--json", "--skip-git-repo-check", ...settings, ...args];
  const env = { CODEX_HOME: home, SERVED_KEY: API_KEY };
  const { code, stdout, stderr } = await program(`${folder}/node_modules/.bin/codex`, ["-C", work, ...given], env);
  const events = jsonLines(stdout);
  const failed = events.find((event) => ["error", "turn.failed"].includes(event.type));
  expect(!failed, failed?.message ?? failed?.error?.message ?? failed);
  expect(code === 0, stderr.slice(-300));
  return events;
}

const said = (events) =>
  events
    .filter((event) => event.type === "item.completed" && event.item.type === "agent_message")
    .map((event) => event.item.text)
    .join("");

check("text", async () => isText(said(await codex("--sandbox", "read-only", QUESTION))));

check("usage", async () => {
  const events = await codex("--sandbox", "read-only", QUESTION);
  const ended = events.find((event) => event.type === "turn.completed");
  expect(ended?.usage.output_tokens > 0, ended ?? "no turn.completed");
});

check("second_turn", async () => isText(said(await codex("resume", "--last", "And of Japan?"))));

check("reasoning_effort", async () => isText(said(await codex("-c", 'model_reasoning_effort="high"', QUESTION))));

check("output_schema", async () => {
  writeFileSync(`${home}/schema.json`, JSON.stringify(PERSON_SCHEMA));
  const answer = JSON.parse(said(await codex("--output-schema", `${home}/schema.json`, PERSON)));
  expect(typeof answer.name === "string" && Number.isInteger(answer.age), answer);
});

await run();
