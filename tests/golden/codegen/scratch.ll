target triple = "x86_64-unknown-linux-gnu"
define i32 @graphc_kernel(ptr %a0, ptr %a1, i64 %a2, i64 %a3, ptr %a4) nounwind "no-builtins" "prefer-vector-width"="512" {
entry1:
  %v12 = alloca [64 x float], align 64
  br label %start2
start2:
  %v3 = getelementptr ptr, ptr %a0, i64 0
  %v4 = load ptr, ptr %v3
  %v5 = getelementptr ptr, ptr %a0, i64 1
  %v6 = load ptr, ptr %v5
  %v9 = icmp slt i64 %a2, %a3
  br i1 %v9, label %b7, label %b8
b7:
  %v10 = phi i64 [ %a2, %start2 ], [ %v46, %b31 ]
  %v11 = call i64 @llvm.expect.i64(i64 %v10, i64 0)
  %v13 = mul i64 %v11, 64
  %v14 = getelementptr float, ptr %v6, i64 %v13
  call void @llvm.prefetch.p0(ptr %v14, i32 1, i32 3, i32 1)
  br label %b15
b8:
  call void @llvm.x86.sse.sfence()
  ret i32 0
b15:
  %v21 = getelementptr float, ptr %v4, i64 %v13
  br label %b16
b16:
  %v18 = phi i64 [ 0, %b15 ], [ %v27, %b16 ]
  %v19 = call i64 @llvm.expect.i64(i64 %v18, i64 0)
  %v20 = add i64 %v19, 64
  %v22 = getelementptr float, ptr %v21, i64 %v19
  %v23 = getelementptr float, ptr %v22, i64 64
  call void @llvm.prefetch.p0(ptr %v23, i32 0, i32 3, i32 1)
  %v24 = sub i64 63, %v19
  %v25 = load float, ptr %v22, align 4
  %v26 = getelementptr float, ptr %v12, i64 %v24
  store float %v25, ptr %v26, align 4
  %v27 = add nsw i64 %v18, 1
  %v28 = icmp slt i64 %v27, 64
  br i1 %v28, label %b16, label %b17
b17:
  br label %b29
b29:
  br label %b30
b30:
  %v32 = phi i64 [ 0, %b29 ], [ %v44, %b43 ]
  %v33 = call i64 @llvm.expect.i64(i64 %v32, i64 0)
  %v34 = getelementptr float, ptr %v12, i64 %v33
  %v35 = load <16 x float>, ptr %v34, align 4
  %v36 = fmul <16 x float> %v35, splat (float 0x4008000000000000)
  %v37 = getelementptr float, ptr %v14, i64 %v33
  %v38 = ptrtoint ptr %v6 to i64
  %v39 = and i64 %v38, 63
  %v40 = icmp eq i64 %v39, 0
  br i1 %v40, label %b41, label %b42
b31:
  %v46 = add nsw i64 %v10, 1
  %v47 = icmp slt i64 %v46, %a3
  br i1 %v47, label %b7, label %b8
b41:
  store <16 x float> %v36, ptr %v37, align 64, !nontemporal !0
  br label %b43
b42:
  store <16 x float> %v36, ptr %v37, align 4
  br label %b43
b43:
  %v44 = add nsw i64 %v32, 16
  %v45 = icmp slt i64 %v44, 64
  br i1 %v45, label %b30, label %b31
}

declare i64 @llvm.expect.i64(i64, i64) 

declare void @llvm.prefetch.p0(ptr, i32, i32, i32) 

declare void @llvm.x86.sse.sfence() 

!0 = !{i32 1}
