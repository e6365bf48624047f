// Anthropic's SDK for Node.js.
import Anthropic from "@anthropic-ai/sdk";
import { API_KEY, BASE_URL, LOCATION, MODEL, PERSON, PERSON_SCHEMA, QUESTION, WEATHER } from "./checks.mjs";
import { check, collect, expect, isLocation, isPerson, isText, run, thrown, tooLong } from "./checks.mjs";

const client = new Anthropic({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const tool = { name: "get_weather", description: "Gets the weather of a city.", input_schema: LOCATION };
const fields = (question, more) => ({
  model: MODEL,
  max_tokens: 300,
  temperature: 0,
  messages: [{ role: "user", content: question }],
  ...more,
});
const message = (question, more) => client.messages.create(fields(question, more));
const textOf = (answer) => answer.content.map((block) => (block.type === "text" ? block.text : "")).join("");
const called = (answer) => {
  const found = answer.content.find((block) => block.type === "tool_use");
  expect(found, `no call: ${JSON.stringify(answer.content)}`);
  return found;
};
const thinking = { type: "enabled", budget_tokens: 1024 };

check("text", async () => isText(textOf(await message(QUESTION)), "Paris"));

check("stream", async () => {
  const events = await collect(await message(QUESTION, { stream: true }));
  isText(events.map((event) => (event.delta?.type === "text_delta" ? event.delta.text : "")).join(""), "Paris");
  expect(events.at(-1).type === "message_stop", events.at(-1));
});

check("stream_helper", async () => isText(await client.messages.stream(fields(QUESTION)).finalText(), "Paris"));

check("tool_and_its_result", async () => {
  const answer = await message(WEATHER, { tools: [tool] });
  isLocation(called(answer).input);
  const result = { type: "tool_result", tool_use_id: called(answer).id, content: "21 degrees Celsius, sunny" };
  const messages = [
    { role: "user", content: WEATHER },
    { role: "assistant", content: answer.content },
    { role: "user", content: [result] },
  ];
  isText(textOf(await message("", { tools: [tool], messages })), "21");
});

check("tool_streamed", async () => {
  isLocation(called(await client.messages.stream(fields(WEATHER, { tools: [tool] })).finalMessage()).input);
});

check("tool_choice_none", async () => {
  const answer = await message(WEATHER, { tools: [tool], tool_choice: { type: "none" } });
  expect(answer.content.every((block) => block.type !== "tool_use"), answer.content);
  isText(textOf(answer));
});

check("tool_choice_any", async () => {
  isLocation(called(await message(QUESTION, { tools: [tool], tool_choice: { type: "any" } })).input);
});

check("thinking_with_a_budget", async () => {
  const answer = await message(QUESTION, { max_tokens: 2000, thinking });
  expect(answer.content[0].type === "thinking", answer.content);
  isText(textOf(answer), "Paris");
});

check("thinking_with_a_budget_streamed", async () => {
  const stream = client.messages.stream(fields(QUESTION, { max_tokens: 2000, thinking }));
  isText(textOf(await stream.finalMessage()), "Paris");
});

check("json_schema", async () => {
  const output_config = { format: { type: "json_schema", schema: PERSON_SCHEMA } };
  isPerson(textOf(await message(PERSON, { output_config })));
});

check("stop_sequences", async () => {
  const answer = await message(QUESTION, { stop_sequences: [" is"] });
  isText(textOf(answer));
  expect(answer.stop_reason === "stop_sequence" && answer.stop_sequence === " is", answer.stop_reason);
});

check("count_tokens", async () => {
  const count = await client.messages.countTokens({ model: MODEL, messages: [{ role: "user", content: QUESTION }] });
  expect(count.input_tokens > 0, count);
});

check("error_too_long", async () => {
  const long = await tooLong();
  const error = await thrown(() => message(long));
  expect(error instanceof Anthropic.BadRequestError, String(error));
  expect(error.error.error.type === "invalid_request_error", error.error);
  expect(error.error.error.message.includes("prompt is too long"), error.error);
});

check("error_unknown_model", async () => {
  const error = await thrown(() => message(QUESTION, { model: "none" }));
  expect(error instanceof Anthropic.NotFoundError && error.error.error.type === "not_found_error", error.error);
});

await run();
