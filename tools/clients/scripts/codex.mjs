// Codex's command, without a terminal. CODEX_SETTINGS has further settings for `-c`, with blanks between them.
//
// Its own instructions and tools are 5,000 to 10,000 tokens, after which the demo model finds no end: there only the start
// of the answer counts. CODEX_SHORT=1 leaves out what can be left out, so that the demo model knows what it is asked.
import { mkdirSync, writeFileSync } from "node:fs";
import { API_KEY, BASE_URL, MODEL, PERSON, PERSON_SCHEMA, QUESTION } from "./checks.mjs";
import { check, expect, isText, jsonLines, program, run } from "./checks.mjs";

const folder = import.meta.dirname;
const home = `${folder}/home/codex`;
const work = `${folder}/home/work`;
for (const each of [home, work]) mkdirSync(each, { recursive: true });
writeFileSync(`${home}/instructions.md`, "Answer the question of the user.");
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
const SHORT = [
  `model_instructions_file="${home}/instructions.md"`,
  "features.shell_tool=false",
  "features.unified_exec=false",
  "features.goals=false",
  "include_permissions_instructions=false",
  "include_environment_context=false",
  "skills.include_instructions=false",
  "skills.bundled.enabled=false",
];
const short = process.env.CODEX_SHORT === "1";
const words = [...(process.env.CODEX_SETTINGS ?? "").split(" ").filter(Boolean), ...(short ? SHORT : [])];
const settings = words.flatMap((each) => ["-c", each]);
const ACCEPTED_MS = 30_000;

async function started(limit, ...args) {
  const given = ["exec", "--json", "--skip-git-repo-check", ...settings, ...args];
  const env = { CODEX_HOME: home, SERVED_KEY: API_KEY };
  const { code, stdout, stderr } = await program(`${folder}/node_modules/.bin/codex`, ["-C", work, ...given], env, limit);
  const events = jsonLines(stdout);
  const failed = events.find((event) => ["error", "turn.failed"].includes(event.type));
  const why = failed?.message ?? failed?.error?.message ?? failed;
  // An answer without an end is cut by the server's default, and Codex takes that for an error.
  expect(!failed || (limit === ACCEPTED_MS && String(why).includes("max_output_tokens")), why);
  expect(code === 0 || limit === ACCEPTED_MS, `exit code ${code}: ${stderr.slice(-300)}`);
  return events;
}
const codex = (...args) => started(undefined, ...args);

const said = (events) =>
  events
    .filter((event) => event.type === "item.completed" && event.item.type === "agent_message")
    .map((event) => event.item.text)
    .join("");

check("accepted", async () => {
  const events = await started(ACCEPTED_MS, "--sandbox", "read-only", QUESTION);
  expect(events.some((event) => event.type === "turn.started"), events);
});

if (!short) await run();

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
