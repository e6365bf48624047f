// Claude Code, without a terminal (`claude -p`).
import { API_KEY, BASE_URL, MODEL, PERSON, PERSON_SCHEMA, QUESTION } from "./checks.mjs";
import { check, expect, isText, jsonLines, program, run } from "./checks.mjs";

// A model of this name gets a budget from Claude Code, one of another name `adaptive`; the service must serve it too.
const BUDGETED = "claude-sonnet-4-5";
const served = {
  ANTHROPIC_BASE_URL: BASE_URL,
  ANTHROPIC_AUTH_TOKEN: API_KEY,
  ANTHROPIC_MODEL: MODEL,
  ANTHROPIC_DEFAULT_HAIKU_MODEL: MODEL,
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
  CLAUDE_CODE_MAX_OUTPUT_TOKENS: "4000",
  CLAUDE_CODE_MAX_RETRIES: "0",
};

async function claude(args, env = {}) {
  const given = ["-p", "--output-format", "json", ...args];
  const path = `${import.meta.dirname}/node_modules/.bin/claude`;
  const { code, stdout, stderr } = await program(path, given, { ...served, ...env });
  const ended = jsonLines(stdout).at(-1);
  expect(ended, `exit code ${code}: ${(stdout + stderr).slice(-300)}`);
  expect(!ended.is_error, ended.result ?? ended);
  return { ...ended, lines: jsonLines(stdout) };
}

check("text", async () => isText((await claude([QUESTION])).result));

check("text_without_tools", async () => isText((await claude([QUESTION, "--tools", ""])).result));

check("system_prompt", async () => isText((await claude(["--system-prompt", "Answer in French.", QUESTION])).result));

check("stream", async () => {
  const args = ["--output-format", "stream-json", "--verbose", "--include-partial-messages", QUESTION];
  const { lines, result } = await claude(args);
  expect(lines.some((line) => line.type === "stream_event"), "no events");
  isText(result);
});

check("second_turn", async () => isText((await claude(["--continue", "And of Japan?"])).result));

check("thinking_off", async () => isText((await claude([QUESTION], { MAX_THINKING_TOKENS: "0" })).result));

check("thinking_with_a_budget", async () => {
  const env = { MAX_THINKING_TOKENS: "2000", ANTHROPIC_MODEL: BUDGETED };
  isText((await claude([QUESTION], env)).result);
});

check("json_schema", async () => {
  const { structured_output: found } = await claude(["--json-schema", JSON.stringify(PERSON_SCHEMA), PERSON]);
  expect(typeof found?.name === "string", found ?? "no structured output");
});

await run();
