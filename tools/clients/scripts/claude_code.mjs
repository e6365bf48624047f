// Claude Code, without a terminal (`claude -p`).
//
// Its own instructions and tools are 15,000 tokens, after which the demo model finds no end: there only the start of the
// answer counts. The other checks leave out what can be left out, so that the demo model knows what it is asked.
import { API_KEY, BASE_URL, MODEL, QUESTION } from "./checks.mjs";
import { check, expect, isText, jsonLines, program, run } from "./checks.mjs";

// A model of this name gets a budget from Claude Code, one of another name `adaptive`; the service must serve it too.
const BUDGETED = "claude-sonnet-4-5";
const SHORT = ["--bare", "--disable-slash-commands", "--system-prompt", "Answer the question."];
const STREAM = ["--output-format", "stream-json", "--verbose", "--include-partial-messages"];
const ACCEPTED_MS = 40_000;
const served = {
  ANTHROPIC_BASE_URL: BASE_URL,
  ANTHROPIC_API_KEY: API_KEY,
  ANTHROPIC_MODEL: MODEL,
  ANTHROPIC_DEFAULT_HAIKU_MODEL: MODEL,
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
  CLAUDE_CODE_MAX_OUTPUT_TOKENS: "2500",
  CLAUDE_CODE_MAX_RETRIES: "0",
};
const started = (args, env, limit) =>
  program(`${import.meta.dirname}/node_modules/.bin/claude`, ["-p", ...args], { ...served, ...env }, limit);

async function claude(args, env = {}) {
  const { code, stdout, stderr } = await started(["--output-format", "json", ...SHORT, ...args], env);
  const ended = jsonLines(stdout).at(-1);
  expect(ended, `exit code ${code}: ${(stdout + stderr).slice(-300)}`);
  expect(!ended.is_error, ended.result ?? ended);
  return { ...ended, lines: jsonLines(stdout) };
}

check("accepted", async () => {
  const { stdout } = await started([...STREAM, QUESTION], {}, ACCEPTED_MS);
  const lines = jsonLines(stdout);
  const failed = lines.find((line) => line.is_error);
  expect(!failed, failed?.result);
  expect(lines.some((line) => line.event?.type === "message_start"), "no message_start");
});

check("text", async () => isText((await claude([QUESTION, "--tools", ""])).result, "Paris"));

check("text_beside_a_tool", async () => isText((await claude([QUESTION, "--tools", "Read"])).result));

check("stream", async () => {
  const { lines, result } = await claude([...STREAM, QUESTION, "--tools", ""]);
  expect(lines.some((line) => line.type === "stream_event"), "no events");
  isText(result, "Paris");
});

check("second_turn", async () => isText((await claude(["--continue", "And of Japan?", "--tools", ""])).result, "Tokyo"));

check("thinking_off", async () => {
  isText((await claude([QUESTION, "--tools", ""], { MAX_THINKING_TOKENS: "0" })).result, "Paris");
});

check("thinking_with_a_budget", async () => {
  const env = { MAX_THINKING_TOKENS: "2000", ANTHROPIC_MODEL: BUDGETED };
  isText((await claude([QUESTION, "--tools", ""], env)).result, "Paris");
});

await run();
