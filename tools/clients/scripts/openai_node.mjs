// OpenAI's SDK for Node.js: chat, completions, Responses, helpers.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { API_KEY, BASE_URL, LOCATION, MODEL, PERSON, QUESTION, STORY, WEATHER } from "./checks.mjs";
import { check, collect, expect, isLocation, isPerson, isText, run, thrown, tooLong } from "./checks.mjs";

const client = new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number().int() });
const described = { name: "get_weather", description: "Gets the weather of a city.", parameters: LOCATION };
const tools = [{ type: "function", function: described }];
const tool = { type: "function", strict: false, ...described };

const messages = (question) => [{ role: "user", content: question }];
const chat = (question, more) =>
  client.chat.completions.create({ model: MODEL, messages: messages(question), temperature: 0, ...more });
const respond = (input, more) => client.responses.create({ model: MODEL, input, temperature: 0, ...more });
const called = (response) => {
  const found = response.output.filter((item) => item.type === "function_call");
  expect(found.length, `no call: ${JSON.stringify(response.output)}`);
  return found[0];
};

check("chat", async () => isText((await chat(QUESTION)).choices[0].message.content, "Paris"));

check("chat_stream", async () => {
  const chunks = await collect(await chat(QUESTION, { stream: true, stream_options: { include_usage: true } }));
  isText(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "Paris");
  expect(chunks.at(-1).usage.completion_tokens > 0, "no usage");
});

check("chat_stream_helper", async () => {
  const stream = client.chat.completions.stream({ model: MODEL, messages: messages(QUESTION), temperature: 0 });
  isText(await stream.finalContent(), "Paris");
});

check("chat_parse_helper", async () => {
  const answer = await client.chat.completions.parse({
    model: MODEL,
    messages: messages(PERSON),
    temperature: 0,
    response_format: zodResponseFormat(Person, "person"),
  });
  isPerson(answer.choices[0].message.parsed);
});

check("chat_run_tools_helper", async () => {
  const given = [];
  const weather = (value) => {
    given.push(value);
    return '{"temperature": 21, "condition": "sunny"}';
  };
  const runnable = [{ type: "function", function: { ...described, function: weather, parse: JSON.parse } }];
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages: messages(WEATHER),
    temperature: 0,
    tools: runnable,
  });
  isText(await runner.finalContent(), "21");
  isLocation(given[0]);
});

check("chat_tool_choice_none", async () => {
  const { message } = (await chat(WEATHER, { tools, tool_choice: "none" })).choices[0];
  expect(!message.tool_calls?.length, message);
  isText(message.content);
});

check("chat_tool_choice_required", async () => {
  const { message } = (await chat(QUESTION, { tools, tool_choice: "required" })).choices[0];
  isLocation(message.tool_calls[0].function.arguments);
});

check("chat_stop", async () => {
  const { content } = (await chat(QUESTION, { stop: " is" })).choices[0].message;
  isText(content);
  expect(!content.includes(" is"), content);
});

check("chat_error_too_long", async () => {
  const long = await tooLong();
  const error = await thrown(() => chat(long));
  expect(error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded", `${error.code} ${error}`);
});

check("completion_stream", async () => {
  const request = { model: MODEL, prompt: "The capital of France is", max_tokens: 5, temperature: 0, stream: true };
  const chunks = await collect(await client.completions.create(request));
  isText(chunks.map((chunk) => chunk.choices[0].text).join(""), "Paris");
});

check("responses", async () => isText((await respond(QUESTION)).output_text, "Paris"));

check("responses_stream", async () => {
  const events = await collect(await respond(QUESTION, { stream: true }));
  isText(events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join(""), "Paris");
  expect(events.at(-1).type === "response.completed", events.at(-1));
});

check("responses_stream_helper", async () => {
  const stream = client.responses.stream({ model: MODEL, input: QUESTION, temperature: 0 });
  isText((await stream.finalResponse()).output_text, "Paris");
});

check("responses_stream_helper_with_a_tool", async () => {
  const stream = client.responses.stream({ model: MODEL, input: WEATHER, temperature: 0, tools: [tool] });
  isLocation(called(await stream.finalResponse()).arguments);
});

check("responses_parse_helper", async () => {
  const format = zodTextFormat(Person, "person");
  const response = await client.responses.parse({ model: MODEL, input: PERSON, temperature: 0, text: { format } });
  isPerson(response.output_parsed);
});

check("responses_tool_and_its_result", async () => {
  const first = await respond(WEATHER, { tools: [tool] });
  isLocation(called(first).arguments);
  const result = { type: "function_call_output", call_id: called(first).call_id, output: "21 degrees, sunny" };
  isText((await respond([...messages(WEATHER), ...first.output, result], { tools: [tool] })).output_text, "21");
});

check("responses_tool_choice_none", async () => {
  const response = await respond(WEATHER, { tools: [tool], tool_choice: "none" });
  expect(response.output.every((item) => item.type !== "function_call"), response.output);
  isText(response.output_text);
});

check("responses_previous_response", async () => {
  const first = await respond("My name is Ada.");
  isText((await respond("What is my name?", { previous_response_id: first.id })).output_text, "Ada");
});

check("responses_background", async () => {
  let response = await respond(QUESTION, { background: true });
  while (["queued", "in_progress"].includes(response.status)) response = await client.responses.retrieve(response.id);
  isText(response.output_text, "Paris");
});

check("responses_length_in_a_stream_is_incomplete", async () => {
  const events = await collect(await respond(STORY, { stream: true, max_output_tokens: 20 }));
  expect(events.at(-1).type === "response.incomplete", events.at(-1).type);
});

check("responses_delete", async () => {
  const { id } = await respond(QUESTION);
  await client.responses.delete(id);
});

check("responses_input_items", async () => {
  const { id } = await respond(QUESTION);
  expect((await client.responses.inputItems.list(id)).data.length, "no items");
});

check("responses_conversation", async () => {
  const conversation = await client.conversations.create();
  isText((await respond(QUESTION, { conversation: conversation.id })).output_text, "Paris");
});

check("responses_error_too_long", async () => {
  const long = await tooLong();
  const error = await thrown(() => respond(long));
  expect(error.code === "context_length_exceeded", `${error.code} ${error}`);
});

await run();
