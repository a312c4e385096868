target triple = "x86_64-unknown-linux-gnu"
define i32 @graphc_kernel(ptr %a0, ptr %a1, i64 %a2, i64 %a3, ptr %a4) nounwind "no-builtins" "prefer-vector-width"="512" {
entry1:
  br label %start2
start2:
  %v3 = getelementptr ptr, ptr %a0, i64 0
  %v4 = load ptr, ptr %v3
  %v5 = getelementptr ptr, ptr %a0, i64 1
  %v6 = load ptr, ptr %v5
  %v7 = getelementptr ptr, ptr %a0, i64 2
  %v8 = load ptr, ptr %v7
  %v9 = getelementptr i64, ptr %a1, i64 1
  %v10 = load i64, ptr %v9, align 8
  %v11 = getelementptr i64, ptr %a1, i64 2
  %v12 = load i64, ptr %v11, align 8
  %v15 = icmp slt i64 %a2, %a3
  br i1 %v15, label %b13, label %b14
b13:
  %v16 = phi i64 [ %a2, %start2 ], [ %v51, %b31 ]
  %v17 = getelementptr i32, ptr %v6, i64 %v16
  %v18 = load i32, ptr %v17, align 4
  %v19 = sext i32 %v18 to i64
  %v20 = icmp slt i64 %v19, 0
  %v21 = icmp sge i64 %v19, %v10
  %v22 = or i1 %v20, %v21
  br i1 %v22, label %b23, label %b24
b14:
  ret i32 0
b23:
  %v26 = getelementptr i8, ptr %a4, i64 8
  store i64 7, ptr %v26
  %v27 = getelementptr i8, ptr %a4, i64 16
  store i64 %v19, ptr %v27
  %v28 = getelementptr i8, ptr %a4, i64 24
  store i64 %v10, ptr %v28
  %v29 = getelementptr i8, ptr %a4, i64 32
  store i64 %v16, ptr %v29
  ret i32 1
b24:
  br label %b25
b25:
  %v32 = icmp slt i64 0, %v12
  br i1 %v32, label %b30, label %b31
b30:
  %v33 = phi i64 [ 0, %b25 ], [ %v49, %b30 ]
  %v34 = mul i64 %v16, %v12
  %v35 = add i64 %v34, %v33
  %v36 = mul i64 %v19, %v12
  %v37 = insertelement <16 x i64> poison, i64 %v33, i32 0
  %v38 = shufflevector <16 x i64> %v37, <16 x i64> poison, <16 x i32> splat (i32 0)
  %v39 = add <16 x i64> %v38, <i64 0, i64 1, i64 2, i64 3, i64 4, i64 5, i64 6, i64 7, i64 8, i64 9, i64 10, i64 11, i64 12, i64 13, i64 14, i64 15>
  %v40 = insertelement <16 x i64> poison, i64 %v36, i32 0
  %v41 = shufflevector <16 x i64> %v40, <16 x i64> poison, <16 x i32> splat (i32 0)
  %v42 = add <16 x i64> %v41, %v39
  %v43 = insertelement <16 x i64> poison, i64 %v12, i32 0
  %v44 = shufflevector <16 x i64> %v43, <16 x i64> poison, <16 x i32> splat (i32 0)
  %v45 = icmp slt <16 x i64> %v39, %v44
  %v46 = getelementptr float, ptr %v4, <16 x i64> %v42
  %v47 = call <16 x float> @llvm.masked.gather.v16f32.v16p0(<16 x ptr> %v46, i32 4, <16 x i1> %v45, <16 x float> splat (float 0x0000000000000000))
  %v48 = getelementptr float, ptr %v8, i64 %v35
  call void @llvm.masked.store.v16f32.p0(<16 x float> %v47, ptr %v48, i32 4, <16 x i1> %v45)
  %v49 = add nsw i64 %v33, 16
  %v50 = icmp slt i64 %v49, %v12
  br i1 %v50, label %b30, label %b31
b31:
  %v51 = add nsw i64 %v16, 1
  %v52 = icmp slt i64 %v51, %a3
  br i1 %v52, label %b13, label %b14
}

declare <16 x float> @llvm.masked.gather.v16f32.v16p0(<16 x ptr>, i32, <16 x i1>, <16 x float>) 

declare void @llvm.masked.store.v16f32.p0(<16 x float>, ptr, i32, <16 x i1>) 

!0 = !{i32 1}
