// OpenAI's Agents SDK for Node.js, on Responses and on chat.
import { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner } from "@openai/agents";
import { setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { API_KEY, BASE_URL, MODEL, PERSON, QUESTION, WEATHER } from "./checks.mjs";
import { check, collect, expect, isPerson, isText, run, thrown, tooLong } from "./checks.mjs";

setTracingDisabled(true);
const client = new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY, maxRetries: 0 });
const weather = tool({
  name: "get_weather",
  description: "Gets the current weather of a city.",
  parameters: z.object({ location: z.string() }),
  execute: async () => "21 degrees Celsius, sunny",
});

for (const [api, model] of [
  ["responses", new OpenAIResponsesModel(client, MODEL)],
  ["chat", new OpenAIChatCompletionsModel(client, MODEL)],
]) {
  const runner = new Runner({ model, modelSettings: { temperature: 0 } });
  const named = (more) => new Agent({ name: "helper", ...more });

  check(`${api}_text`, async () => isText((await runner.run(named(), QUESTION)).finalOutput, "Paris"));

  check(`${api}_instructions`, async () => {
    isText((await runner.run(named({ instructions: "Answer in French." }), QUESTION)).finalOutput, "Paris");
  });

  check(`${api}_tool`, async () => {
    isText((await runner.run(named({ tools: [weather] }), WEATHER)).finalOutput, "21");
  });

  check(`${api}_stream`, async () => {
    const result = await runner.run(named(), QUESTION, { stream: true });
    const parts = await collect(result.toTextStream());
    await result.completed;
    isText(parts.join(""), "Paris");
  });

  check(`${api}_stream_with_a_tool`, async () => {
    const result = await runner.run(named({ tools: [weather] }), WEATHER, { stream: true });
    await collect(result);
    await result.completed;
    isText(result.finalOutput, "21");
  });

  check(`${api}_output_type`, async () => {
    const outputType = z.object({ name: z.string(), age: z.number() });
    isPerson((await runner.run(named({ outputType }), PERSON)).finalOutput);
  });

  check(`${api}_output_type_beside_a_tool`, async () => {
    const outputType = z.object({ name: z.string(), age: z.number() });
    const result = await runner.run(named({ outputType, tools: [weather] }), WEATHER);
    expect(result.newItems.some((item) => item.type === "tool_call_item"), "no call");
  });

  check(`${api}_tool_choice_none`, async () => {
    const agent = named({ tools: [weather], modelSettings: { toolChoice: "none", temperature: 0 } });
    const result = await runner.run(agent, WEATHER);
    expect(result.newItems.every((item) => item.type !== "tool_call_item"), "a call");
    isText(result.finalOutput);
  });

  check(`${api}_tool_choice_required`, async () => {
    const agent = named({ tools: [weather], modelSettings: { toolChoice: "required", temperature: 0 } });
    const result = await runner.run(agent, WEATHER);
    expect(result.newItems.some((item) => item.type === "tool_call_item"), "no call");
  });

  check(`${api}_second_turn`, async () => {
    const first = await runner.run(named(), "My name is Ada.");
    const turns = [...first.history, { role: "user", content: "What is my name?" }];
    isText((await runner.run(named(), turns)).finalOutput, "Ada");
  });

  check(`${api}_error_too_long`, async () => {
    const long = await tooLong();
    const error = await thrown(() => runner.run(named(), long));
    expect(error.code === "context_length_exceeded", `${error.code} ${error}`);
  });
}

check("responses_second_turn_with_other_instructions", async () => {
  const runner = new Runner({ model: new OpenAIResponsesModel(client, MODEL), modelSettings: { temperature: 0 } });
  const first = await runner.run(new Agent({ name: "helper" }), QUESTION);
  const french = new Agent({ name: "helper", instructions: "Answer in French." });
  const alone = await runner.run(french, "What is the capital of Japan?");
  const again = await runner.run(french, "What is the capital of Japan?", { previousResponseId: first.lastResponseId });
  expect(again.finalOutput === alone.finalOutput, `'${again.finalOutput}' is not '${alone.finalOutput}'`);
});

await run();
